"""What the RAM model cache's policy saves on many kinds of traces, with and without knowing the queue, against simple policies.

    python benchmarks/policies/candidates.py [--traces 220] [--seed 20] [--queue 8] [--plot docs/images/policy-candidates.png] [--check]

*rates* is the policy by each key's own gaps alone, *plan* that of ``comfy/ram_model_cache/policy.py``, *cache* what the server does: it
follows whichever of plan, rates, LRU and MRU saved most of late (``shadows.py``). *queue*: the same, and the next requests are known.
Shares are of the clairvoyant optimum.
"""

import argparse
import concurrent.futures
import functools
import os
import pathlib
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from policies.traces import GENERATORS, NEW_GENERATORS, Trace, committed, generated  # noqa: E402
from policy import Run, lru, mru, optimum  # noqa: E402

from comfy.ram_model_cache.policy import Question, RamCachePolicy  # noqa: E402
from comfy.ram_model_cache.shadows import ChoosingPolicy  # noqa: E402

NAMES = ("rates", "LRU", "MRU", "plan", "cache", "queue")
SIMPLE = NAMES[:3]
WANTED_MEAN, WANTED_QUEUE, WANTED_OF_BEST = 0.93, 0.97, 0.95


class RatesOnly(RamCachePolicy):
    """What was the cache's policy before it planned."""

    def planned(self, asked: Question) -> set:
        return self.by_rates(asked)


def served(policy: RamCachePolicy, trace: Trace, ahead: int = 0) -> Run:
    """Seconds saved by each request, when *policy* is asked as the cache asks it and knows the next *ahead* requests."""
    kept: dict[str, int] = {}
    saved = []
    for now, key in enumerate(trace.requests):
        policy.request(key)
        saved.append(trace.seconds[key] if key in kept else 0.0)
        if key in kept:
            continue
        decision = policy.decide(key, trace.sizes[key], trace.cap, kept, coming=trace.requests[now + 1 : now + 1 + ahead])
        for victim in decision.victims:
            del kept[str(victim)]
        policy.learn(key, trace.sizes[key], trace.seconds[key])
        if decision.admit:
            kept[key] = trace.sizes[key]
        assert sum(kept.values()) <= trace.cap
    return saved


@dataclass(frozen=True)
class Score:
    """One trace: each policy's share of the optimum, 0 to 1."""

    trace: Trace
    shares: dict[str, float]

    def of_best(self, name: str) -> float:
        """What *name* saves over the most that rates, LRU and MRU save."""
        best = max(self.shares[other] for other in SIMPLE)
        return self.shares[name] / best if best else 1.0


def measured(trace: Trace, ahead: int) -> Score | None:
    """Every policy on *trace*; None where nothing can be saved."""
    most_s = optimum(trace)
    if not most_s:
        return None
    runs = (
        served(RatesOnly(), trace),
        lru(trace),
        mru(trace),
        served(RamCachePolicy(), trace),
        served(ChoosingPolicy(trace.cap), trace),
        served(ChoosingPolicy(trace.cap), trace, ahead),
    )
    return Score(trace, {name: sum(run) / most_s for name, run in zip(NAMES, runs)})


def all_measured(traces: Sequence[Trace], ahead: int) -> list[Score]:
    """Every policy on *traces*, as many at once as there are processors."""
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(functools.partial(measured, ahead=ahead), traces, chunksize=4)
        return [score for score in found if score is not None]


def kind(trace: Trace) -> str:
    """What sort of trace it is, with the sizes of its models."""
    shape = trace.name.split(" of ")[0].split("-of-")[0].removesuffix("-equal").removesuffix("-mixed")
    shape = shape if shape in ("zig-zag", "ping-pong") else shape.replace("-", " ").replace("zipf", "Zipf")
    return f"{shape}, {'mixed' if len(set(trace.sizes.values())) > 1 else 'equal'}"


def means(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """{kind: {policy: mean share of the optimum}}."""
    by_kind: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_kind[kind(score.trace)].append(score)
    return {name: {who: statistics.fmean(score.shares[who] for score in some) for who in NAMES} for name, some in sorted(by_kind.items())}


def report(scores: Sequence[Score]) -> str:
    """The means by kind as a Markdown table, and below it what falls short of the best simple policy."""
    lines = ["| traces | " + " | ".join(NAMES) + " |", "| --- |" + " ---: |" * len(NAMES)]
    overall = {name: statistics.fmean(score.shares[name] for score in scores) for name in NAMES}
    for name, shares in [*means(scores).items(), (f"all {len(scores)}", overall)]:
        lines.append(f"| {name} | " + " | ".join(f"{shares[who]:.1%}" for who in NAMES) + " |")
    for who in (NAMES[0], *NAMES[3:]):
        low = sorted((score.of_best(who), kind(score.trace)) for score in scores if score.of_best(who) < WANTED_OF_BEST)
        named = ": " + ", ".join(f"{name} {share:.1%}" for share, name in low) if low else ""
        lines.append(f"\n{who}: {len(low)} of {len(scores)} traces below 95 % of the best of rates, LRU and MRU{named}")
    return "\n".join(lines)


def shortfalls(scores: Sequence[Score], least_of_best: float = 0.9) -> list[str]:
    """Which figures do not hold: the means, and that no trace falls below *least_of_best* of the best simple policy."""
    mean = {name: statistics.fmean(score.shares[name] for score in scores) for name in NAMES}
    wanted = {"cache": WANTED_MEAN, "queue": WANTED_QUEUE}
    found = [f"{who}: {mean[who]:.1%} of the optimum in the mean, {share:.0%} wanted" for who, share in wanted.items() if mean[who] < share]
    for who in wanted:
        low = [score.trace.name for score in scores if score.of_best(who) < least_of_best]
        found += [f"{who}: below {least_of_best:.0%} of the best simple policy on {', '.join(low)}"] if low else []
    return found


def plot(scores: Sequence[Score], path: pathlib.Path) -> None:
    """Bars: each policy's mean share of the optimum on each kind of trace, as a PNG."""
    from matplotlib import pyplot

    by_kind = means(scores)
    figure, axes = pyplot.subplots(figsize=(12, 5))
    width = 0.8 / len(NAMES)
    for index, name in enumerate(NAMES):
        axes.bar([place + index * width for place in range(len(by_kind))], [shares[name] for shares in by_kind.values()], width, label=name)
    axes.set_xticks([place + 0.3 for place in range(len(by_kind))], list(by_kind), rotation=40, ha="right")
    axes.set_ylabel("seconds saved / clairvoyant optimum")
    axes.set_ylim(0, 1.02)
    axes.legend(ncols=len(NAMES), loc="upper center", bbox_to_anchor=(0.5, 1.1), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table; with ``--check``, exit with an error where a figure does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=220, metavar="N", help="generated traces, beside the committed ones (default: 220)")
    parser.add_argument("--seed", type=int, default=20, help="of the generated traces (default: 20)")
    parser.add_argument("--queue", type=int, default=8, metavar="K", help="requests known ahead (default: 8)")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG to write")
    parser.add_argument("--check", action="store_true", help="exit with an error where a figure does not hold")
    options = parser.parse_args()
    generators = (*GENERATORS, *NEW_GENERATORS)
    scores = all_measured([*committed(), *generated(options.traces, options.seed, generators)], options.queue)
    print(report(scores))
    if options.plot:
        plot(scores, options.plot)
    broken = shortfalls(scores) if options.check else []
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
