"""Routers for a fleet, compared on made-up traffic: seconds spent by servers, jobs that had to load a model, and how long jobs took.

    python benchmarks/routing.py                 every trace of benchmarks/traces/routing/, every router
    python benchmarks/routing.py --check         the product's router within 10 % of the bound on each; exit status 1 if not
    python benchmarks/routing.py --large         1,000 servers and 1,000,000 jobs, the product's router alone; with --check it has
                                                 to be within 10 % of the bound too, and done in two minutes

A trace file says how traffic is made (the generator is seeded, so it is the same everywhere). The bound is what nobody can beat, knowing
all jobs beforehand: every job computes, and each model is read at least once; the last job ends no earlier than all servers together can
be done with that, nor before the last arrival has been computed.
"""

import argparse
import json
import pathlib
import sys
import time

# Before this folder, whose fleet.py is not the package.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from routing_policies import POLICIES  # noqa: E402
from routing_simulation import Outcome, Trace, simulate  # noqa: E402

TRACES = pathlib.Path(__file__).parent / "traces" / "routing"
WITHIN = 1.10
LARGE_LIMIT_S = 120.0
OURS = "ours"


def load_traces(names: list[str]) -> list[Trace]:
    """The traces of those names, all without any. Raises ``SystemExit`` for an unknown one."""
    paths = {path.stem: path for path in sorted(TRACES.glob("*.json"))}
    if unknown := set(names) - set(paths):
        raise SystemExit(f"no trace {', '.join(sorted(unknown))}; there are {', '.join(paths)}")
    return [Trace.from_document(json.loads(path.read_text(encoding="utf-8"))) for name, path in paths.items() if not names or name in names]


def line(name: str, outcome: Outcome, bound_s: float, end_bound_s: float) -> str:
    """One row of the table."""
    return (
        f"{name:<18} {outcome.busy_s:>11.0f} {outcome.busy_s / bound_s:>6.3f} {outcome.cold_jobs:>7} {outcome.end_s / end_bound_s:>6.3f} "
        f"{outcome.percentile(0.5):>8.1f} {outcome.percentile(0.95):>8.1f} {outcome.longest_s:>8.1f}"
    )


def compare(trace: Trace, policies: list[str]) -> float:
    """Print how *policies* fare; returns the product's seconds over the bound."""
    busy_s, end_s = trace.bounds()
    print(f"\n{trace.name}: {trace.servers} servers, {len(trace.jobs)} jobs, {len(trace.models)} models; {trace.description}")
    print(f"{'router':<18} {'server s':>11} {'/bound':>6} {'cold':>7} {'end':>6} {'median':>8} {'p95':>8} {'longest':>8}")
    ratio = 0.0
    for name in policies:
        outcome = simulate(trace, POLICIES[name](trace))
        print(line(name, outcome, busy_s, end_s), flush=True)
        if name == OURS:
            ratio = outcome.busy_s / busy_s
    print(f"{'bound':<18} {busy_s:>11.0f} {1:>6.3f}")
    return ratio


def large(servers: int, jobs: int) -> bool:
    """Simulate a large fleet; whether the product's router keeps to the bound, and to the time that it may take."""
    started_s = time.perf_counter()
    ratio = compare(Trace.large(servers, jobs), [OURS])
    took_s = time.perf_counter() - started_s
    print(f"{took_s:.0f} s in all, the making of the trace included; at most {LARGE_LIMIT_S:.0f} s and {WITHIN} of the bound are allowed")
    return ratio <= WITHIN and took_s <= LARGE_LIMIT_S


def main(argv: list[str] | None = None) -> int:
    """Compare; the exit status says whether the check passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", help="names of traces; all without any")
    parser.add_argument("--check", action="store_true", help="the product's router alone, with an exit status")
    parser.add_argument("--large", action="store_true", help="1,000 servers and 1,000,000 jobs")
    given = parser.parse_args(argv)
    if given.large:
        is_good = large(1_000, 1_000_000)
        return int(given.check and not is_good)
    ratios = {trace.name: compare(trace, [OURS] if given.check else list(POLICIES)) for trace in load_traces(given.traces)}
    worst = max(ratios, key=lambda name: ratios[name])
    print(f"\nworst: {ratios[worst]:.3f} of the bound on {worst}; at most {WITHIN} is allowed")
    return int(ratios[worst] > WITHIN)


if __name__ == "__main__":
    sys.exit(main())
