"""The policy keeps what docs/benchmarks/policy.md promises, on the committed traces and a sample of generated ones."""

import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
if not (FOLDER / "policy.py").is_file():
    pytest.skip("the trace simulator is not part of this checkout", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
import policy  # noqa: E402 - in the folder that is on the path now

TRACES = policy.committed()


def test_every_kind_of_trace_is_committed():
    assert len(TRACES) == 12
    assert sum(trace.cyclic for trace in TRACES) == 4


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_bounds_hold_on_committed_trace(trace):
    row = policy.measure(trace)
    assert policy.shortfalls([row], [])[0] == []
    assert all(saved <= row.optimum_s + 1e-6 for saved in row.saved_s.values())


def test_generated_traces_are_served_better_than_by_lru():
    broken, means = policy.shortfalls([], policy.generated(120, seed=5))
    assert broken == []
    assert means["keepwarm"] > 1.2 * means["LRU"]


def test_optimum_is_what_trying_everything_gives():
    trace = policy.Trace("tiny", 2, {"a": 1, "b": 1, "c": 2}, {"a": 1.0, "b": 2.0, "c": 5.0}, tuple("abcabcab"))
    assert policy.optimum(trace) == _by_search(trace, 0, frozenset())


def _by_search(trace, index, kept):
    """The most that can be saved from *index* on: every choice of what to keep, tried."""
    if index == len(trace.requests):
        return 0.0
    key = trace.requests[index]
    after = kept | {key}
    choices = [frozenset(other for bit, other in enumerate(sorted(after)) if number >> bit & 1) for number in range(1 << len(after))]
    best = max(_by_search(trace, index + 1, choice) for choice in choices if sum(trace.sizes[other] for other in choice) <= trace.cap)
    return best + (trace.seconds[key] if key in kept else 0.0)


def test_shortfalls_are_reported():
    trace = TRACES[0]
    row = policy.Row(trace, 10.0, {"keepwarm": 1.0, "LRU": 9.0}, 0.5)
    assert len(policy.shortfalls([row], [])[0]) == 2
