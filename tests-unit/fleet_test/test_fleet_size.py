"""The number of servers follows the jobs: upwards soon, downwards late, never for a moment's sake."""

import pytest

from fleet.fleet_size import FleetSize, SizeLimits

LIMITS = SizeLimits(least=1, most=4, jobs_per_server=2.0, grow_after_s=10.0, shrink_after_s=100.0)


def test_it_grows_by_all_that_is_missing_once_that_has_lasted():
    size = FleetSize(LIMITS)
    assert [size.wanted(1, 6, now_s) for now_s in (0.0, 5.0, 9.9, 10.0)] == [1, 1, 1, 3]
    size = FleetSize(LIMITS)
    assert [size.wanted(1, jobs, now_s) for now_s, jobs in ((0.0, 6), (9.0, 1), (11.0, 6), (20.0, 6), (21.0, 6))] == [1, 1, 1, 1, 3]
    size = FleetSize(LIMITS)
    assert [size.wanted(1, 1000, now_s) for now_s in (0.0, 10.0)] == [1, 4], "no more than the most"


def test_it_shrinks_by_one_at_a_time_once_that_has_lasted_and_not_below_the_least():
    size = FleetSize(LIMITS)
    assert [size.wanted(3, 0, now_s) for now_s in (0.0, 99.0, 100.0)] == [3, 3, 2]
    assert [size.wanted(2, 0, now_s) for now_s in (101.0, 200.0, 201.0)] == [2, 2, 1]
    assert [size.wanted(1, 0, now_s) for now_s in (202.0, 1000.0)] == [1, 1]


def test_a_moment_the_other_way_starts_the_wait_anew():
    size = FleetSize(LIMITS)
    size.wanted(2, 0, 0.0)
    assert size.wanted(2, 8, 50.0) == 2
    assert [size.wanted(2, 0, now_s) for now_s in (51.0, 100.0, 150.0, 151.0)] == [2, 2, 2, 1]


def test_servers_that_are_missing_come_at_once():
    assert FleetSize(SizeLimits(least=2, most=4)).wanted(1, 0, 0.0) == 2


@pytest.mark.parametrize("wrong", [{"least": 0}, {"least": 3, "most": 2}, {"jobs_per_server": 0}, {"grow_after_s": -1}])
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        SizeLimits(**wrong)
