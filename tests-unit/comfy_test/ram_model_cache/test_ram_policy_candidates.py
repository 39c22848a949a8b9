"""The candidates for the cache's policy, and the traces they are measured on, are what docs/benchmarks/policy.md says they are."""

import pathlib
import random
import statistics
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
if not (FOLDER / "policies" / "candidates.py").is_file():
    pytest.skip("the trace simulator is not part of this checkout", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
policy = pytest.importorskip("policy")
traces = pytest.importorskip("policies.traces")
planning = pytest.importorskip("policies.planning")
candidates = pytest.importorskip("policies.candidates")


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


def test_what_followed_the_longest_match_is_foretold():
    assert planning.continuation(list("abxabyzab" + "xab"), 4) == list("yzab")
    assert planning.continuation(list("abcabc"), 5) == list("abcab")
    assert planning.continuation(list("abc"), 5) == []


@pytest.mark.parametrize(
    "future, sizes, cap, kept",
    [
        ("bca", {"a": 1, "b": 1, "c": 1}, 1, {"b"}),
        ("bcab", {"a": 1, "b": 1, "c": 1}, 2, {"b", "c"}),
        ("abab", {"a": 3, "b": 1, "c": 2}, 3, {"b", "c"}),
        ("aaaa", {"a": 2, "b": 1, "c": 1}, 2, {"a"}),
    ],
)
def test_what_is_asked_for_soon_and_fits_is_kept(future, sizes, cap, kept):
    assert planning.worth_keeping(list(future), "abc", sizes, lambda key: (1.0, 0.01), cap) == kept


def test_a_slow_key_is_kept_although_small_ones_save_more_per_byte():
    seconds = {"large": 10.0, "small": 2.0}
    wanted = planning.worth_keeping(["small", "large"], list(seconds), {"large": 10, "small": 1}, lambda key: (seconds[key], 0.0), 10)
    assert wanted == {"large"}


def test_no_candidate_saves_more_than_the_optimum_and_a_known_queue_comes_close_to_it():
    scores = candidates.measured(candidates.committed(), 8)
    assert len(scores) == 12
    assert max(share for score in scores for share in score.shares.values()) <= 1 + 1e-9
    assert candidates.shortfalls(scores) == []
    assert statistics.fmean(score.shares["queue"] for score in scores) > 0.97


def test_shadows_that_fall_behind_are_not_followed():
    """LRU keeps nothing of a cycle, MRU what is stale of a drift: to follow either there would lose half and more."""
    for trace in traces.generated(4, 3, (traces.cycle, traces.drift)):
        assert sum(candidates.with_shadows(trace)) >= 0.9 * sum(policy.keepwarm(trace))


def test_a_plan_that_falls_behind_is_left_for_a_better_shadow(monkeypatch):
    """The plan for the queue is made to keep nothing: the others must take over."""
    monkeypatch.setattr(candidates, "_as_queued", lambda planner, key, kept: None)
    trace = next(trace for trace in candidates.committed() if trace.name == "ping-pong-equal")
    saved = candidates.with_shadows(trace, 8)
    assert sum(saved[:4]) == 0
    assert sum(saved[-20:]) >= 0.9 * sum(policy.keepwarm(trace)[-20:]) > 0


def test_shortfalls_and_report_name_what_falls_short():
    trace = candidates.committed()[0]
    score = candidates.Score(trace, {"today's": 0.5, "LRU": 0.8, "MRU": 0.4, "shadows": 0.6, "queue": 0.7})
    assert score.of_best("queue") == pytest.approx(0.875)
    assert len(candidates.shortfalls([score])) == 3
    assert "today's: 1 of 1 traces below 95 %" in candidates.report([score])
