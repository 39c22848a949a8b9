"""``apply`` and ``revert`` killed at any moment, and records or checkouts that lead elsewhere: whole or undone, and nothing outside."""

import base64
import itertools
import json
import os
import random

import pytest
from small_checkouts import SERIES, apply, git, killed_at, make_checkout, revert, state

from patchset import journal, tree_files
from patchset.checkout import open_checkout
from patchset.outcomes import PatchsetError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")
WAYS = {"plain": {}, "commits": {"commit": True}, "branch": {"branch": "made", "commit": True}}
# A part of the moments each time; the long attack takes them all.
SHARE = 0.05


@pytest.fixture
def checkout(tmp_path):
    return make_checkout(tmp_path / "ComfyUI")


def kill_everywhere(command, tmp_path, way, dice, share):
    """Kill *command* ("apply", "revert") before a *share* of its steps, each in a checkout of its own: (how many steps, tries)."""
    attempt, tries = {"apply": _killed_apply, "revert": _killed_revert}[command], 0
    for step in itertools.count():
        if step and dice.random() > share:
            continue
        tries += 1
        if not attempt(make_checkout(tmp_path / f"{command}-{step}"), step, WAYS[way], dice):
            return step, tries


def _killed_apply(root, step, how, dice):
    before = state(root)
    was_killed = killed_at(step, lambda: apply(root, **how))
    with_apply = dice.random() < 0.5 and was_killed
    if with_apply:
        apply(root, **(how if not git(root, "branch", "--list", "made") or journal.is_open(open_checkout(root)) else {}))
        assert (root / "execution.py").read_text() == "one = 11\ntwo = 22\nthree = 33\n"
    revert(root)
    assert state(root) == before, f"killed before step {step}, then {'apply and ' if with_apply else ''}revert"
    return was_killed


def _killed_revert(root, step, how, dice):
    before = state(root)
    apply(root, **how)
    was_killed = killed_at(step, lambda: revert(root))
    revert(root)
    assert state(root) == before, f"killed before step {step}"
    return was_killed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("command", "least"), [("apply", 20), ("revert", 10)])
def test_killed_at_any_step_it_is_put_back_or_repeated(tmp_path, command, least, way, request):
    steps, tries = kill_everywhere(command, tmp_path, way, random.Random(request.node.name), SHARE)
    assert steps > least and tries > 1


def test_a_healing_that_is_killed_itself_can_be_repeated(checkout):
    before = state(checkout)
    assert killed_at(40, lambda: apply(checkout, branch="made", commit=True))
    assert journal.is_open(open_checkout(checkout))
    for step in range(0, 60, 3):
        if not killed_at(step, lambda: revert(checkout)):
            break
    revert(checkout)
    assert state(checkout) == before


def test_the_same_holds_without_git(tmp_path):
    for step in range(0, 40, 4):
        root = make_checkout(tmp_path / str(step), with_git=False)
        before = state(root)
        killed_at(step, lambda root=root: apply(root))
        revert(root)
        assert state(root) == before


def test_what_was_edited_after_an_interruption_is_not_overwritten(checkout):
    assert killed_at(40, lambda: apply(checkout))
    assert (checkout / "execution.py").read_text() != "one = 1\ntwo = 2\nthree = 3\n"
    (checkout / "execution.py").write_text("mine\n")
    for command in (apply, revert):
        with pytest.raises(PatchsetError, match="execution.py"):
            command(checkout)
    assert (checkout / "execution.py").read_text() == "mine\n"
    with pytest.raises(PatchsetError, match="interrupted"):
        journal.require_none(open_checkout(checkout))


def test_commits_made_after_an_interruption_stay(checkout):
    assert killed_at(40, lambda: apply(checkout))
    git(checkout, "commit", "-q", "--allow-empty", "-m", "mine")
    with pytest.raises(PatchsetError, match="other commits"):
        revert(checkout)
    assert git(checkout, "log", "-1", "--format=%s") == "mine"


def test_a_second_process_is_refused(checkout):
    with journal.alone(open_checkout(checkout)), pytest.raises(PatchsetError, match="another process"):
        apply(checkout)
    apply(checkout)


def test_a_failed_commit_on_a_detached_head_leaves_it_detached(checkout):
    git(checkout, "checkout", "-q", "--detach")
    hook = checkout / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    before = state(checkout)
    with pytest.raises(PatchsetError):
        apply(checkout, branch="made", commit=True)
    assert state(checkout) == before and not git(checkout, "branch", "--list", "made")


@pytest.mark.parametrize("commits", [[], ["mine"]])
def test_several_series_on_a_branch_are_left_together(checkout, commits):
    before = state(checkout)
    apply(checkout, branch="made", commit=True)
    for title in commits:
        git(checkout, "commit", "-q", "--allow-empty", "-m", title)
    told = revert(checkout)
    after = state(checkout)
    if commits:
        assert git(checkout, "rev-parse", "--abbrev-ref", "HEAD") == "made"
        git(checkout, "switch", "-q", "master")
    else:
        assert any("back on master" in line for line in told)
    assert {**after, "branch": "master"} == before and git(checkout, "branch", "--list", "made")


def test_one_series_of_a_branch_is_undone_by_a_commit(checkout):
    apply(checkout, branch="made", commit=True)
    revert(checkout, [SERIES[2]])
    assert (checkout / "execution.py").read_text() == "one = 11\ntwo = 22\nthree = 3\n"
    assert git(checkout, "log", "-1", "--format=%s") == 'Revert "Add third"'
    revert(checkout)
    assert (checkout / "execution.py").read_text() == "one = 1\ntwo = 2\nthree = 3\n" and not state(checkout)["remembered"]


def test_after_checkout_only_what_is_left_is_undone(checkout):
    before = state(checkout)
    apply(checkout)
    git(checkout, "checkout", "--", ".")
    revert(checkout)
    assert state(checkout) == before


def test_a_branch_that_is_there_is_not_touched(checkout):
    git(checkout, "branch", "made")
    before = state(checkout)
    with pytest.raises(PatchsetError, match="exists already"):
        apply(checkout, branch="made", commit=True)
    assert state(checkout) == before and git(checkout, "branch", "--list", "made")


@pytest.mark.parametrize("linked", ["execution.py", "comfy/deep/third.py", "comfy/deep", "comfy/new"])
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_links_are_refused_and_stay(checkout, tmp_path, linked, where):
    target = (checkout if where == "inside" else tmp_path) / "target"
    if (checkout / linked).exists():
        (checkout / linked).rename(target)
    else:
        target.mkdir()
    (checkout / linked).symlink_to(target)
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "a link")
    before = state(checkout)
    with pytest.raises(PatchsetError, match="is a link to"):
        apply(checkout)
    assert state(checkout) == before and (checkout / linked).is_symlink()


OUTSIDE = ["../outside.py", "comfy/../../outside.py", "{root}/outside.py", ".git/hooks/post-checkout", ".GIT/config"]
OUTSIDE += ["a\\..\\b", "C:x", "", "link/x.py", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("which", ["record", "journal"])
def test_records_that_lead_outside_write_nothing(checkout, tmp_path, name, which):
    (tmp_path / "elsewhere").mkdir()
    (checkout / "link").symlink_to(tmp_path / "elsewhere")
    apply(checkout)
    folder = checkout / ".git/keepwarm-patchset"
    content = base64.b64encode(b"written").decode()
    name = name.format(root=tmp_path)
    if which == "record":
        document = json.loads((folder / "applied.json").read_text())
        document[-1]["changes"].append({"path": name, "before": content, "after": None})
        (folder / "applied.json").write_text(json.dumps(document))
    else:
        row = {"path": name, "before": content, "expected": ["", "x"]}
        told = {"what": "apply", "series": [], "subjects": [], "start": "", "branch": None, "branch_before": None, "records": {}}
        (folder / "journal.json").write_text(json.dumps({**told, "files": [row]}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(PatchsetError):
        revert(checkout)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", ""])
def test_a_journal_whose_records_lead_elsewhere_is_refused(checkout, name):
    apply(checkout)
    told = {"what": "apply", "series": [], "subjects": [], "start": "", "branch": None, "branch_before": None, "files": []}
    (checkout / ".git/keepwarm-patchset/journal.json").write_text(json.dumps({**told, "records": {name: ""}}))
    with pytest.raises(PatchsetError, match="damaged"):
        revert(checkout)


def test_a_record_of_an_older_keepwarm_is_undone_with_series_that_are_no_more(checkout):
    before = state(checkout)
    (checkout / "execution.py").write_text("one = 1\ntwo = 2\nthree = 3\nfour = 4\n")
    row = {"path": "execution.py", "before": b"one = 1\ntwo = 2\nthree = 3\n", "after": (checkout / "execution.py").read_bytes()}
    row |= {side: base64.b64encode(row[side]).decode() for side in ("before", "after")}
    folder = checkout / ".git/keepwarm-patchset"
    folder.mkdir()
    (folder / "old-name.json").write_text(json.dumps({"series": "old-name", "commit": None, "branch": None, "changes": [row]}))
    with pytest.raises(PatchsetError, match="another version"):
        apply(checkout)
    assert any("old-name" in line for line in revert(checkout))
    assert state(checkout) == before


def test_a_folder_of_records_that_is_a_link_is_refused(checkout, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (checkout / ".git/keepwarm-patchset").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PatchsetError, match="is a link"):
        apply(checkout)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_byte_code_behind_a_link_stays(checkout, tmp_path):
    apply(checkout)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.cpython-311.pyc").write_bytes(b"x")
    (checkout / "comfy/new/folder/__pycache__").symlink_to(tmp_path / "elsewhere")
    revert(checkout)
    assert (tmp_path / "elsewhere" / "__init__.cpython-311.pyc").exists()


def test_a_write_keeps_the_permissions_and_leaves_nothing_beside(tmp_path):
    (tmp_path / "a.py").write_text("old")
    (tmp_path / "a.py").chmod(0o755)
    tree_files.write(tmp_path, "a.py", b"new")
    assert (tmp_path / "a.py").read_bytes() == b"new" and (tmp_path / "a.py").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]
