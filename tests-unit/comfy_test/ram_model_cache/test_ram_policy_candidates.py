"""The policy and the traces it is measured on are what docs/benchmarks/policy.md says they are."""

import pathlib
import random
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
if not (FOLDER / "policies" / "candidates.py").is_file():
    pytest.skip("the trace simulator is not part of this checkout", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
from policies import candidates, traces  # noqa: E402 - in the folder that is on the path now


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("make", traces.NEW_GENERATORS, ids=lambda make: make.__name__)
def test_generated_trace_is_the_same_for_a_seed_and_fits_the_optimum(make, mixed):
    trace = make(random.Random(4), mixed)
    assert trace == make(random.Random(4), mixed)
    assert trace != make(random.Random(5), mixed)
    assert len(set(trace.requests)) <= traces.MOST_KEYS
    assert set(trace.requests) <= set(trace.sizes)
    assert min(trace.sizes.values()) <= trace.cap < sum(trace.sizes.values())


def test_zig_zag_goes_forth_and_back():
    requests = traces.zig_zag(random.Random(1)).requests
    steps = {abs(int(later[1:]) - int(sooner[1:])) for sooner, later in zip(requests, requests[1:])}
    assert steps <= {0, 1}
    assert len(set(requests)) >= 4


def test_nothing_saves_more_than_the_optimum_and_the_figures_hold_on_the_committed_traces():
    scores = [candidates.measured(trace, 8) for trace in candidates.committed()]
    assert len(scores) == 12
    assert max(share for score in scores for share in score.shares.values()) <= 1 + 1e-9
    assert candidates.shortfalls(scores, least_of_best=0.92) == []


def test_shortfalls_and_report_name_what_falls_short():
    trace = candidates.committed()[0]
    score = candidates.Score(trace, {"rates": 0.5, "LRU": 0.8, "MRU": 0.4, "plan": 0.6, "cache": 0.7, "queue": 0.72})
    assert score.of_best("queue") == pytest.approx(0.9)
    assert len(candidates.shortfalls([score])) == 4
    assert "cache: 1 of 1 traces below 95 %" in candidates.report([score])
