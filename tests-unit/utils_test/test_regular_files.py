"""Only regular files are opened, and no open waits for anybody."""

import os
import socket

import pytest

from utils.regular_files import FileTooLarge, NotRegularFile, open_regular, read_regular


def test_a_file_and_a_link_to_it_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert [read_regular(tmp_path / name, 7) for name in ("file", "link")] == [b"content"] * 2
    with pytest.raises(FileTooLarge, match="7 bytes; at most 6"):
        read_regular(tmp_path / "file", 6)


def test_everything_else_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket must be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for name in ("pipe", "folder", "device", "socket"):
            with pytest.raises(NotRegularFile, match=name):
                open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


@pytest.mark.skipif(not os.path.exists("/proc/kmsg"), reason="no /proc")
def test_what_is_made_up_as_it_is_read_gives_only_what_it_says_it_has():
    assert read_regular("/proc/self/status", 1 << 20) == b""
