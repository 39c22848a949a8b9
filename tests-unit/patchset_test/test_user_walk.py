"""Users' actions at random between the tool's: no dead end, nothing half-written, and the files of a checkout made from scratch."""

import pytest
from user_walk import Walk


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
