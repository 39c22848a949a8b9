"""Reading files for their fingerprints: what stands still holds up nobody."""

import threading

import pytest

from comfy_execution.prompt_files.file_state import file_state
from comfy_execution.shared_keys import file_fingerprints as module
from comfy_execution.shared_keys.file_fingerprints import FileFingerprints, read_digest


@pytest.fixture
def stuck(monkeypatch):
    """Reading of files whose name begins with "stuck" stands still until this is set; all threads have ended after the test."""
    released = threading.Event()

    def read(path, state, moved):
        if "stuck" in path:
            released.wait(20)
        return read_digest(path, state, moved)

    monkeypatch.setattr(module, "read_digest", read)
    before = set(threading.enumerate())
    yield released
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()


def test_a_stalled_read_is_passed_over_reported_once_and_used_when_it_ends(tmp_path, caplog, stuck):
    fingerprints = FileFingerprints(still_s=0.1)

    def request(name):
        path = tmp_path / name
        if not path.exists():
            path.write_text(name)
        return fingerprints.request(str(path), file_state(str(path)))

    first = [request(f"stuck{number}") for number in range(2)]
    assert request("other").result(10), "others are read all the same"
    assert [one.result(10) for one in first] == [None, None]
    assert request("stuck0").done() and request("stuck0").result() is None and request("new").result(10)
    assert caplog.text.count("stands still") == 2
    reading = [thread for thread in threading.enumerate() if thread.name.startswith("file-fingerprint")]
    assert reading and all(thread.daemon for thread in reading)
    stuck.set()
    for thread in reading:
        thread.join(20)
    assert request("stuck0").result(10) and caplog.text.count("stands still") == 2


def test_no_more_files_are_read_than_allowed_and_none_after_too_many_stand_still(tmp_path, monkeypatch, stuck):
    monkeypatch.setattr(module, "MAX_STILL", 3)
    fingerprints = FileFingerprints(threads=1, still_s=0.05)
    paths = [tmp_path / f"stuck{number}" for number in range(8)]
    for path in paths:
        path.touch()
    assert [one.result(10) for one in [fingerprints.request(str(path), file_state(str(path))) for path in paths]] == [None] * 8
    assert sum(thread.name == "file-fingerprint" for thread in threading.enumerate()) == 3


def test_nothing_is_read_after_the_end(tmp_path, stuck):
    fingerprints = FileFingerprints(threads=1)
    for name in ("stuck", "waits"):
        (tmp_path / name).touch()
    _, waits = [fingerprints.request(str(tmp_path / name), file_state(str(tmp_path / name))) for name in ("stuck", "waits")]
    fingerprints.close()
    assert waits.result(1) is None
    assert fingerprints.request(str(tmp_path / "waits"), file_state(str(tmp_path / "waits"))).result(1) is None
