"""Names from outside stay in their folder."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.files.path_guard import UnsafePath, check_relative_name, contained_path
from utils.folder_walk import MAX_DEPTH


@pytest.mark.parametrize("name", ["a.txt", "a/b/c.txt", "a/../b.txt", "ünï/日本.json", "..a", "a..b", " ", "a:b.json", "./x"])
def test_ordinary_names_are_below_the_root(tmp_path, name):
    path = contained_path(tmp_path, name)
    assert os.path.commonpath((path, tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/x", "\\x", "..\\x", "a\\..\\..\\x", "C:\\x", "c:/x", "\\\\host\\x"])
def test_names_that_lead_out_are_refused_as_escaping(tmp_path, name):
    with pytest.raises(UnsafePath) as caught:
        contained_path(tmp_path, name)
    assert caught.value.status == 403


@pytest.mark.parametrize("name", ["a\0b", "x" * 256, "é" * 128, "a/" * 2049, "\ud800"])
def test_names_that_no_file_can_have_are_malformed(tmp_path, name):
    with pytest.raises(UnsafePath) as caught:
        contained_path(tmp_path, name)
    assert caught.value.status == 400


def test_link_out_of_the_root_is_refused_and_link_inside_is_not(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    os.symlink(outside, root / "out")
    os.symlink(root / "real", root / "in")
    assert contained_path(root, "in/a.txt") == str(root / "in" / "a.txt")
    with pytest.raises(UnsafePath):
        contained_path(root, "out/a.txt")


def test_root_that_is_itself_a_link_works(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "root")
    assert contained_path(tmp_path / "root", "a") == str(tmp_path / "root" / "a")


@given(st.lists(st.sampled_from(["..", ".", "a", "", "/", "\\", "C:", "é", "\0"]), max_size=8))
def test_every_path_that_passes_the_check_stays_below_any_root(parts):
    name = "/".join(parts)
    try:
        check_relative_name(name)
    except UnsafePath:
        return
    assert os.path.normpath(os.path.join("/root/folder", name)).startswith("/root/folder")


def test_paths_below_the_deepest_allowed_folder_are_refused(tmp_path):
    assert contained_path(tmp_path, "/".join("d" * MAX_DEPTH)).endswith("/d")
    with pytest.raises(UnsafePath, match="folders deep") as refused:
        contained_path(tmp_path, "/".join("d" * (MAX_DEPTH + 1)))
    assert refused.value.status == 400
