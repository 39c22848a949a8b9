"""The committed traces: the router stays within a tenth of what nobody can beat, and well below the others."""

import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import routing  # noqa: E402
from routing_policies import POLICIES  # noqa: E402
from routing_simulation import Trace, simulate  # noqa: E402

TRACES = {trace.name: trace for trace in routing.load_traces([]) if len(trace.jobs) <= 5000}


@pytest.mark.parametrize("name", TRACES)
def test_the_router_is_within_a_tenth_of_the_bound(name):
    trace = TRACES[name]
    busy_s, end_s = trace.bounds()
    outcome = simulate(trace, POLICIES[routing.OURS](trace))
    assert len(outcome.took_s) == len(trace.jobs)
    assert busy_s <= outcome.busy_s + 1e-6 <= routing.WITHIN * busy_s
    assert outcome.end_s + 1e-6 >= end_s


def test_cold_jobs_and_p95_on_the_trace_of_the_issue():
    trace = TRACES["three-servers-zipf"]
    ours, ray = (simulate(trace, POLICIES[name](trace)) for name in (routing.OURS, "two choices (Ray)"))
    assert ours.cold_jobs * 3 <= ray.cold_jobs and ours.percentile(0.95) <= ray.percentile(0.95)


def test_a_flood_starves_nobody():
    trace = TRACES["flood"]
    ours, least = (simulate(trace, POLICIES[name](trace)) for name in (routing.OURS, "least queue"))
    assert ours.longest_s < least.longest_s


def test_a_large_fleet_is_simulated_job_by_job():
    trace = Trace.large(100, 3000)
    outcome = simulate(trace, POLICIES[routing.OURS](trace))
    assert len(outcome.took_s) == 3000 and outcome.busy_s >= trace.bounds()[0]


def test_the_check_has_an_exit_status(capsys, monkeypatch):
    assert routing.main(["one-server", "--check"]) == 0
    monkeypatch.setattr(routing, "WITHIN", 0.9)
    assert routing.main(["one-server", "--check"]) == 1
    with pytest.raises(SystemExit, match="no trace x"):
        routing.main(["x"])
