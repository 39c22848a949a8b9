"""Which folders are used as a store, and what their files are called."""

import os
import stat

import pytest

from comfy.ram_model_store import folder as folders
from comfy.ram_model_store.folder import PART_NAME, WRITING_NAME, StoreFolder, StoreRefused, auto_folder, file_system_of, part_name


def test_a_folder_is_made_for_this_user_alone_and_found_again(folder):
    for _ in range(2):
        with folder.opened() as opened:
            os.close(opened.open("a", os.O_RDWR | os.O_CREAT))
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(folder.path, "a")).st_mode) == 0o600
    assert folder.total_bytes() > 0


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o740])
def test_a_folder_that_others_may_use_is_refused(folder, mode):
    os.mkdir(folder.path, 0o700)
    os.chmod(folder.path, mode)
    with pytest.raises(StoreRefused, match="chmod"), folder.opened():
        pass


def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    with folder.opened():
        pass
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreRefused, match="belongs to user"), folder.opened():
        pass


def test_a_link_to_a_folder_and_a_file_are_refused(memory_path):
    (memory_path / "there").mkdir(mode=0o700)
    (memory_path / "link").symlink_to(memory_path / "there")
    (memory_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(StoreRefused), StoreFolder(str(memory_path / name)).opened():
            pass


def test_a_folder_on_a_disk_is_refused(tmp_path):
    if file_system_of(tmp_path.stat().st_dev) in folders.MEMORY_FILE_SYSTEMS:
        pytest.skip("temporary files lie in memory here")
    with pytest.raises(StoreRefused, match="not in memory"), StoreFolder(str(tmp_path / "store")).opened():
        pass


def test_links_are_never_followed_and_pipes_never_waited_for(folder, memory_path):
    (memory_path / "secret").write_bytes(b"untouched")
    with folder.opened() as opened:
        os.symlink(memory_path / "secret", "link", dir_fd=opened.descriptor)
        os.mkfifo("pipe", dir_fd=opened.descriptor)
        with pytest.raises(OSError, match="symbolic"):
            opened.open("link", os.O_RDWR | os.O_CREAT)
        os.close(opened.open("pipe", os.O_RDONLY))
        assert opened.remove("link") and opened.remove("pipe") and not opened.remove("link")
    assert (memory_path / "secret").read_bytes() == b"untouched"


def test_auto_is_a_folder_of_this_user_where_shared_memory_has_room(memory_path, monkeypatch):
    found = auto_folder(str(memory_path))
    assert found.path == str(memory_path / f"keepwarm-{os.geteuid()}")
    real = os.statvfs(memory_path)
    small = os.statvfs_result([*real[:2], (64 << 20) // real.f_frsize, *real[3:]])
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    with pytest.raises(StoreRefused, match="--shm-size"):
        auto_folder(str(memory_path))


def test_auto_without_shared_memory_says_so(tmp_path):
    with pytest.raises(StoreRefused):
        auto_folder(str(tmp_path / "missing"))
    if file_system_of(tmp_path.stat().st_dev) not in folders.MEMORY_FILE_SYSTEMS:
        with pytest.raises(StoreRefused, match="not a tmpfs"):
            auto_folder(str(tmp_path))


def test_names_come_from_digests_and_tell_of_replaced_files():
    name = part_name("../place", "state\0", "options/../../etc")
    assert PART_NAME.fullmatch(name) and not WRITING_NAME.fullmatch(name)
    other = part_name("../place", "another state", "other options")
    assert folders.same_place_other_files(name, other)
    assert not folders.same_place_other_files(name, part_name("../place", "state\0", "other options"))
    assert not folders.same_place_other_files(name, part_name("elsewhere", "another state", ""))


def test_a_file_system_that_the_system_does_not_tell_of_has_no_name(tmp_path):
    (tmp_path / "mounts").write_text("36 35 0:7 / /dev/shm rw - tmpfs tmpfs rw\nnonsense\n")
    assert file_system_of(os.makedev(0, 7), str(tmp_path / "mounts")) == "tmpfs"
    assert file_system_of(os.makedev(0, 8), str(tmp_path / "mounts")) == file_system_of(0, str(tmp_path / "none")) == ""
