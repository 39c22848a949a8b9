"""Walking and removing folders: any depth, links that lead to themselves, no recursion."""

import os

import pytest
from deep_folders import make_deep

from utils.folder_walk import MAX_DEPTH, regular_files_in, remove_tree, walk


@pytest.mark.parametrize("name", ["d", "d" * 200])
def test_a_tree_deeper_than_any_path_is_removed(tmp_path, name):
    top = tmp_path / "temp"
    top.mkdir()
    make_deep(top, 1500, name)
    remove_tree(str(top))
    assert not top.exists()


def test_links_are_removed_and_what_they_lead_to_stays(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    top = tmp_path / "temp"
    top.mkdir()
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "itself").symlink_to("itself")
    os.mkfifo(top / "pipe")
    remove_tree(str(top))
    assert not top.exists() and (tmp_path / "outside" / "kept").exists()


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "temp").symlink_to(tmp_path / "outside")
    remove_tree(str(tmp_path / "temp"))
    assert (tmp_path / "outside" / "kept").exists()


def test_what_cannot_be_removed_is_logged_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "temp").mkdir()
    for number in range(3):
        (tmp_path / "temp" / str(number)).touch()

    def deny(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "unlink", deny)
    remove_tree(str(tmp_path / "temp"))
    assert caplog.text.count("3 files in it stay") == 1


def test_walking_is_in_order_and_stops_at_its_depth(tmp_path, caplog):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    assert [visited.below for visited in walk(str(tmp_path))] == ["", "a", "b", "b/c"]
    make_deep(tmp_path / "a", 1500)
    assert len(list(walk(str(tmp_path / "a")))) == MAX_DEPTH + 1
    assert "too deep" in caplog.text
    remove_tree(str(tmp_path / "a"))


def test_only_regular_files_are_listed(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert sorted(entry.name for entry in regular_files_in(str(tmp_path))) == ["file", "link"]
    assert regular_files_in(str(tmp_path / "nowhere")) == []
