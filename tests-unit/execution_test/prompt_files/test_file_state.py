"""The state of a file: what changes it, and when it can be relied on."""

import os
import time

from comfy_execution.prompt_files.file_state import TICK_S, file_state, unsettled_s


def test_every_way_of_changing_a_file_changes_its_state(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"a" * 10)
    times = os.stat(path)

    def forged_write():
        path.write_bytes(b"b" * 10)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def swap():
        (tmp_path / "g").write_bytes(b"c" * 10)
        os.replace(tmp_path / "g", path)

    for change in (forged_write, swap, lambda: path.chmod(0o600), lambda: os.link(path, tmp_path / "h")):
        time.sleep(unsettled_s(file_state(str(path))))
        before = file_state(str(path))
        change()
        assert file_state(str(path)) not in (before, None)
    path.unlink()
    assert file_state(str(path)) is None and file_state("\ud800") is None


def test_a_file_changed_just_now_is_unsettled_for_a_tick():
    now = time.time()
    assert 0 < unsettled_s((1, 1, 1, 1, int(now * 1e9))) <= TICK_S
    assert unsettled_s((1, 1, 1, 1, int((now - 1) * 1e9))) == unsettled_s((1, 1, 1, 1, int((now + 9) * 1e9))) == unsettled_s(None) == 0
