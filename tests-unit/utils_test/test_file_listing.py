"""Lists of files: links, loops, depth and numbers."""

import os

import pytest

from utils import folder_walk
from utils.file_listing import FileList, recursive_search


def test_a_folder_is_listed_under_the_names_of_the_links_to_it_as_well(tmp_path):
    (tmp_path / "styles" / "anime").mkdir(parents=True)
    (tmp_path / "styles" / "anime" / "a.safetensors").touch()
    (tmp_path / "0-favourites").symlink_to("styles/anime")
    (tmp_path / "styles" / "z-again").symlink_to("anime")
    files, times = recursive_search(str(tmp_path))
    assert sorted(files) == ["0-favourites/a.safetensors", "styles/anime/a.safetensors", "styles/z-again/a.safetensors"]
    assert len(times) == 5 and FileList(tuple(files), times).is_current()


@pytest.mark.parametrize("target", [".", "..", "../..", "{root}"])
def test_a_link_to_a_folder_it_lies_in_is_not_followed(tmp_path, target):
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (inner / "loop").symlink_to(target.format(root=tmp_path))
    assert [name for name in recursive_search(str(tmp_path))[0] if name.count("file") and name.count("loop") > 1] == []
    assert "one/two/file" in recursive_search(str(tmp_path))[0]


def test_links_that_lead_nowhere_or_to_themselves_take_nothing_else_away(tmp_path):
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "file").touch()
    assert "file" in recursive_search(str(tmp_path))[0]


def test_links_side_by_side_at_each_level_do_not_multiply_for_ever(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(folder_walk, "MAX_FOLDERS", 200)
    for level in range(20):
        (tmp_path / f"d{level}").mkdir()
    for level in range(19):
        for side in "ab":
            (tmp_path / f"d{level}" / side).symlink_to(tmp_path / f"d{level + 1}")
    _, times = recursive_search(str(tmp_path / "d0"))
    assert 100 < len(times) <= 202 and "too many" in caplog.text


def test_folders_far_too_deep_for_a_recursive_walk_are_left_out_with_a_word(tmp_path, caplog):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        files, times = recursive_search(str(tmp_path))
        for _ in range(1500):  # what clears up after tests would descend by recursion
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(here)
    assert files == [] and len(times) == folder_walk.MAX_DEPTH + 1 and "too deep" in caplog.text
