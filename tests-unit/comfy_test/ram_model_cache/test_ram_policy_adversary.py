"""No policy that decides by the past alone keeps near the best simple one on every trace: one is made against each."""

import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
if not (FOLDER / "policies" / "adversary.py").is_file():
    pytest.skip("the trace simulator is not part of this checkout", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
from policies import adversary, candidates  # noqa: E402 - in the folder that is on the path now
from policy import lru, mru, optimum  # noqa: E402


@pytest.mark.parametrize("name", ["rates", "plan", "cache"])
@pytest.mark.parametrize(("models", "fit"), [(3, 2), (5, 3), (8, 4)])
def test_on_the_trace_against_it_a_policy_saves_nothing_and_a_simple_one_much(name, models, fit):
    trace = adversary.against(adversary.ByPolicy(adversary.policies(fit)[name], fit), models, fit, 120)
    again = adversary.policies(fit)[name]
    assert sum(candidates.served(again, trace)) == 0
    best = max(sum(lru(trace)), sum(mru(trace)))
    assert best >= 0.3 * 120 * adversary.SECONDS
    assert best <= optimum(trace)


@pytest.mark.parametrize(("newest", "run", "other"), [(False, lru, mru), (True, mru, lru)], ids=["LRU", "MRU"])
def test_simple_policies_have_such_traces_too_and_are_those_of_the_benchmark(newest, run, other):
    trace = adversary.against(adversary.ByAge(3, newest), 5, 3, 120)
    assert sum(run(trace)) == 0 < sum(other(trace))
    cache, kept = adversary.ByAge(2, newest), []
    requests = ("m0", "m1", "m2", "m0", "m2", "m1", "m1", "m0")
    for model in requests:
        kept.append(adversary.SECONDS if model in cache.kept else 0.0)
        cache.ask(model)
    sizes = dict.fromkeys(("m0", "m1", "m2"), adversary.SIZE_MB)
    assert kept == run(adversary.Trace("x", 2 * adversary.SIZE_MB, sizes, dict.fromkeys(sizes, adversary.SECONDS), requests))


def test_who_keeps_everything_cannot_be_surprised():
    with pytest.raises(ValueError, match="keeps 3 models where 3 fit"):
        adversary.against(adversary.ByAge(3, newest=False), 3, 3, 10)


def test_with_the_queue_known_the_same_trace_is_served():
    trace = adversary.against(adversary.ByPolicy(adversary.policies(3)["cache"], 3), 5, 3, 120)
    assert sum(candidates.served(adversary.policies(3)["cache"], trace, ahead=8)) >= 0.9 * optimum(trace)
