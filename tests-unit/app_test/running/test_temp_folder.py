"""The folder of short-lived files: emptied by whoever is alone, and by nobody else."""

import pytest

from app.running.temp_folder import TempFolder

pytest.importorskip("fcntl")


def fill(folder):
    (folder / "preview.png").touch()
    return folder / "preview.png"


def test_a_server_that_is_alone_empties_it_at_start_and_end(tmp_path):
    (tmp_path / "temp" / "old").mkdir(parents=True)
    claimed = TempFolder(str(tmp_path / "temp"))
    assert (tmp_path / "temp").is_dir() and not list((tmp_path / "temp").iterdir())
    fill(tmp_path / "temp")
    claimed.release()
    claimed.release()
    assert not (tmp_path / "temp").exists()


def test_a_second_server_leaves_it_alone_and_says_who_has_it(tmp_path, caplog):
    first = TempFolder(str(tmp_path / "temp"), 8188)
    file = fill(tmp_path / "temp")
    with open(tmp_path / "temp.lock", "a") as lock:
        lock.write('{"pid": 1, "port": 7777, "since": "yesterday"}\nrubbish\n')
    second = TempFolder(str(tmp_path / "temp"), 8189)
    assert file.exists() and "process 1, port 7777, since yesterday) and is left as it is" in caplog.text
    second.release()
    assert file.exists() and "and stays" in caplog.text
    first.release()
    assert not file.exists()


def test_the_first_may_end_before_the_second(tmp_path):
    first, second = TempFolder(str(tmp_path / "temp")), TempFolder(str(tmp_path / "temp"))
    file = fill(tmp_path / "temp")
    first.release()
    assert file.exists()
    second.release()
    assert not file.exists()


def test_without_a_lock_file_the_start_goes_on_and_says_so(tmp_path, caplog):
    (tmp_path / "temp.lock").mkdir()
    claimed = TempFolder(str(tmp_path / "temp"))
    assert "cannot be locked" in caplog.text and (tmp_path / "temp").is_dir()
    claimed.release()
