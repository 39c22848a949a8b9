"""Files are replaced whole or not at all."""

import os
import stat

import pytest

from app.files.atomic_file import reserve, write_atomic, write_atomic_with


def test_write_replaces_the_content_and_keeps_the_mode(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chmod(path, 0o600)
    write_atomic(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic_with(str(path), fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_reserve_succeeds_once(tmp_path):
    assert reserve(str(tmp_path / "a"))
    assert not reserve(str(tmp_path / "a"))
