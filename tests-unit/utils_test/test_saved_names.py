"""The counter of the next saved file, and files that appear whole."""

import os
import pathlib

import pytest

from utils.saved_names import next_counter, save_path
from utils.whole_files import partial_beside, write_whole


@pytest.mark.parametrize(
    "present, expected",
    [
        ([], 1),
        (["shot_00001_.png"], 2),
        (["shot_00001.png"], 2),
        (["shot_00007-mask.png", "shot_00003.png"], 8),
        (["SHOT_00004.PNG"], 5),
        (["shots_00009.png", "shot.png", "shot_x.png", "another_shot_00009.png"], 1),
    ],
)
def test_the_counter_follows_the_highest_whatever_comes_after_it(tmp_path, present, expected):
    for name in present:
        (tmp_path / name).touch()
    assert next_counter(str(tmp_path), "shot") == expected


@pytest.mark.parametrize("length", [1, 240, 251, 255])
def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path, length):
    path = tmp_path / ("n" * length)
    write_whole(str(path), lambda file: file.write(b"content"))
    assert path.read_bytes() == b"content" and os.listdir(tmp_path) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_error_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    path = tmp_path / "kept"
    path.write_text("before")
    path.chmod(0o600)
    with pytest.raises(RuntimeError), partial_beside(str(path)) as partial:
        pathlib.Path(partial).write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["kept"]
    write_whole(str(path), lambda file: file.write(b"after"), durable=True)
    assert path.read_bytes() == b"after" and path.stat().st_mode & 0o777 == 0o600


def test_a_prefix_with_too_many_folders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="more than 64 folders; shorten it"):
        save_path("d/" * 65 + "a", str(tmp_path))
    assert save_path("d/" * 60 + "a", str(tmp_path))[2] == 1


def test_half_a_surrogate_in_a_prefix_is_replaced(tmp_path):
    folder, name, counter, subfolder, filled = save_path("sub\ud83d/x\ud83d", str(tmp_path))
    assert (name, counter, subfolder, filled) == ("x\ufffd", 1, "sub\ufffd", "sub\ufffd/x\ufffd") and os.path.isdir(folder)
