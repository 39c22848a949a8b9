"""The errors of the seam travel between processes."""

import copy

import pytest

from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull
from fleet.values import JobState, JobView, ServerEstimate


@pytest.mark.parametrize(
    "error", [QueueFull(7), PromptRefused(400, b'{"error": 1}'), DuplicateJob(JobView("a", JobState.RUNNING)), NoServer("none is left")]
)
def test_errors_survive_a_trip(error):
    twin = copy.copy(error)  # by the same __reduce__ as pickling
    assert type(twin) is type(error) and isinstance(twin, FleetError)
    assert (str(twin), vars(twin)) == (str(error), vars(error))


def test_a_job_has_four_ends():
    assert [state for state in JobState if state.is_end] == [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST]


def test_an_estimate_is_waiting_and_loading():
    assert ServerEstimate("a", 2.0, 3.5).total_s == 5.5
