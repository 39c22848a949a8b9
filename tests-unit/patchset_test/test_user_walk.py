"""Users' actions at random between the tool's: no dead end, nothing half-written, and the files of a checkout made from scratch."""

import pytest
from small_checkouts import KNOWN, apply, git, make_checkout, revert, state
from user_walk import KNOWN as KNOWN_TO_THE_WALK
from user_walk import SHARED, Walk


def walk(folder, seed, steps):
    going = Walk(folder, seed)
    try:
        going.go(steps)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, after {len(going.log)} steps: " + "\n".join(going.log[-25:])) from error


@pytest.mark.parametrize("seed", range(2))
def test_a_short_walk_ends_as_from_scratch(tmp_path, seed):
    walk(tmp_path, seed, 20)


@pytest.mark.long
@pytest.mark.timeout(580)
@pytest.mark.parametrize("seed", range(20))
def test_a_walk_of_300_steps_ends_as_from_scratch(tmp_path, seed):
    walk(tmp_path, 1000 + seed, 300)


@pytest.mark.parametrize("how", ["commits", "files", "one in a commit"])
@pytest.mark.parametrize("name", KNOWN)
def test_one_is_undone_from_under_the_others(tmp_path, name, how):
    one, others = KNOWN[name], [series for series in KNOWN.values() if series.name != name]
    want, have = make_checkout(tmp_path / "want"), make_checkout(tmp_path / "have")
    apply(want, series=others)
    if how == "one in a commit":
        apply(have, series=[one], commit=True)
        apply(have, series=others)
    else:
        apply(have, commit=how == "commits")
    revert(have, [one])
    unlike = {"status", "remembered"} if how == "commits" else set()
    assert {key: value for key, value in state(have).items() if key not in unlike} == {
        key: value for key, value in state(want).items() if key not in unlike
    }
    if how == "one in a commit":
        assert git(have, "log", "-1", "--format=%s") == f'Revert "{one.subject}"'


def test_a_file_of_two_series_is_no_sign_of_the_one_whose_own_files_are_gone(tmp_path):
    """As after a merge of a branch where it had been undone."""
    going = Walk(tmp_path, 0)
    going.apply(list(KNOWN_TO_THE_WALK.values()), commit=True)
    going.settle_revert(git(going.ours, "log", "-1", "--format=%H"))
    git(going.ours, "commit", "-q", "--amend", "-m", "by hand")
    assert (going.ours / SHARED).exists()
    going.revert([KNOWN_TO_THE_WALK["third"]])
    assert (going.ours / SHARED).exists()
    going.revert([KNOWN_TO_THE_WALK["first"]])
    assert not (going.ours / SHARED).exists()
