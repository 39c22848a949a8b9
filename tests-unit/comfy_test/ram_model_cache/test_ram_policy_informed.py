"""The sources are those of the generators, and the policy that knows them does not know what they will draw."""

import pathlib
import random
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "benchmarks"
if not (FOLDER / "policies" / "informed.py").is_file():
    pytest.skip("the trace simulator is not part of this checkout", allow_module_level=True)
sys.path.insert(0, str(FOLDER))
from policies import informed, sources, traces  # noqa: E402 - in the folder that is on the path now


def test_sources_draw_the_committed_and_the_generated_traces():
    assert sorted(one.trace.name for one in sources.sourced_committed()) == sorted(trace.name for trace in traces.committed())
    found = [one.trace for one in sources.sourced_generated(44, 7)]
    assert found == traces.generated(44, 7, (*traces.GENERATORS, *traces.NEW_GENERATORS))


@pytest.mark.parametrize(
    "make", [traces.bursts, traces.repeats, traces.nightly, traces.phases, traces.hot_pair], ids=lambda make: make.__name__
)
def test_what_nobody_can_know_is_drawn_anew(make):
    source = sources.SOURCES[make](random.Random(3))
    state = [state for _, state in source.states(random.Random(4), 30)][-1]
    futures = {tuple(source.future(random.Random(seed), state, 80)) for seed in range(20)}
    assert len(futures) == 20
    again = {tuple(source.future(random.Random(9), state, 40)) for _ in range(2)}
    assert len(again) == 1


def test_a_burst_lasts_at_least_as_long_as_it_did():
    burst = sources._Burst(model=2, done=9, total=10)
    assert {burst.again(random.Random(seed), 2, 10).total for seed in range(30)} == {9, 10}
    assert sources._Burst().again(random.Random(1), 2, 10).total == 0


def test_who_knows_a_cycle_saves_all_that_can_be_saved_and_who_knows_a_taste_does_not():
    made = {one.trace.name: one for one in sources.sourced_committed()}
    cycle, zipf = made["cycle-of-7-equal"], made["zipf-equal"]
    assert sum(informed.informed(cycle)) == pytest.approx(informed.optimum(cycle.trace))
    assert 0.8 < sum(informed.informed(zipf)) / informed.optimum(zipf.trace) < 0.98


def test_no_policy_saves_more_on_groups_than_the_most_in_the_mean():
    assert informed.most_in_the_mean(2, 8, 4) == 75.0 and informed.most_in_the_mean(3, 3, 9) == 300.0
    found = informed.luck((2, 5, 4), 12)
    error = 4 * 12.0 / 12**0.5  # four times what chance makes of the mean: a trace's sum varies by 10 loads or so
    assert sum(found.cache) / 12 < found.most + error
    assert max(found.cache) > found.most > min(found.cache), "one draw is not the mean"
    assert "5 groups of 2, 4 models fit" in informed.luck_report([found])


def test_report_counts_what_is_below():
    scores = [informed.Score("Zipf, equal", 0.9, 0.7, 0.9), informed.Score("Zipf, equal", 0.5, 0.9, 0.8)]
    told = informed.report({None: scores[:1], 4: scores})
    assert "| 4 | 70.0% | 1 | 62.5% | 80.0% | 1 | 77.8% |" in told
    assert "| committed | 90.0% | 0 | 100.0% | 70.0% | 1 | 77.8% |" in told
    assert "| Zipf, equal | 3 | 1 | 2 |" in told
