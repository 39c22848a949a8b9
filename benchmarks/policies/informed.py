"""How far luck decides: the cache against a policy that knows the sources of the traces, both over the best of rates, LRU and MRU.

    python benchmarks/policies/informed.py [--seeds 20 77 101 202 303] [--draws 100] [--plot docs/images/policy-informed.png]

The informed policy knows a generator's probabilities, its place in it and every model's size and seconds from the start, but not what will
be drawn. It keeps what is worth most over futures drawn from the source.
"""

import argparse
import concurrent.futures
import functools
import os
import pathlib
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from policies.candidates import WANTED_OF_BEST, RatesOnly, kind, served  # noqa: E402
from policies.sources import Sourced, sourced_committed, sourced_generated  # noqa: E402
from policies.traces import Trace  # noqa: E402
from policy import Run, lru, mru, optimum  # noqa: E402

from comfy.ram_model_cache.planning import Value, knapsack, worth_keeping  # noqa: E402
from comfy.ram_model_cache.shadows import ChoosingPolicy  # noqa: E402

FUTURES, AHEAD = 16, 32
GROUP_SOURCES = ((2, 3, 2), (2, 5, 4), (2, 8, 4), (3, 3, 3), (3, 5, 6))  # models in a group, groups, models that fit


def informed(sourced: Sourced) -> Run:
    """Seconds saved by each request when what is kept is chosen by the source's own futures, each packed as the cache packs its own."""
    trace, rng = sourced.trace, random.Random(0)
    values = {key: Value(trace.sizes[key], trace.seconds[key], 0.0) for key in trace.sizes}
    kept: set[str] = set()
    saved = []
    for key, state in zip(trace.requests, sourced.states):
        saved.append(trace.seconds[key] if key in kept else 0.0)
        if key in kept or trace.sizes[key] > trace.cap:
            continue
        kept = kept | {key}
        if sum(trace.sizes[other] for other in kept) > trace.cap:
            kept = _worth_most(kept, [sourced.source.future(rng, state, AHEAD) for _ in range(FUTURES)], values, trace.cap)
    return saved


def _worth_most(rivals: set[str], futures: Sequence[list[str]], values: dict[str, Value], cap: int) -> set[str]:
    """Those of *rivals* to keep; what no future names may stay where there is room."""
    votes = dict.fromkeys(sorted(rivals), 0)
    for future in futures:
        for other in worth_keeping(future, sorted(rivals), values, cap):
            votes[str(other)] += 1
    items = [((count + 1e-6) * values[other].seconds, values[other].size_bytes, other) for other, count in votes.items()]
    items.sort(key=lambda item: item[0] / item[1], reverse=True)
    return {str(other) for other in knapsack(items, cap)}


def best_of_three(trace: Trace) -> float:
    """The most seconds that rates, LRU or MRU save."""
    return max(sum(run) for run in (served(RatesOnly(), trace), lru(trace), mru(trace)))


@dataclass(frozen=True)
class Score:
    """One trace: shares of the optimum, 0 to 1."""

    kind: str
    cache: float
    informed: float
    best: float

    def of_best(self, who: str) -> float:
        """What *who* saves over the best of rates, LRU and MRU."""
        share: float = getattr(self, who)
        return share / self.best if self.best else 1.0


def measured(sourced: Sourced) -> Score | None:
    """Both policies on one trace; None where nothing can be saved."""
    trace = sourced.trace
    most_s = optimum(trace)
    if not most_s:
        return None
    cache = sum(served(ChoosingPolicy(trace.cap), trace))
    return Score(kind(trace), cache / most_s, sum(informed(sourced)) / most_s, best_of_three(trace) / most_s)


@functools.cache
def _of_seed(seed: int | None) -> list[Sourced]:
    return sourced_committed() if seed is None else sourced_generated(220, seed)


def _measured_at(place: tuple[int | None, int]) -> Score | None:
    """The trace at (seed, index): a source holds functions, which do not go from one process to another."""
    return measured(_of_seed(place[0])[place[1]])


def scores_of(seed: int | None) -> list[Score]:
    """Both policies on the 220 traces of *seed*, or on the committed ones (None), as many at once as there are processors."""
    places = [(seed, index) for index in range(len(_of_seed(seed)))]
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        return [score for score in pool.map(_measured_at, places, chunksize=8) if score is not None]


def report(by_seed: dict[int | None, list[Score]]) -> str:
    """How many traces of each seed are below 95 % of the best of three, and the means; then the same by kind. Two Markdown tables."""
    lines = ["| traces of seed | cache: mean | below | lowest | informed: mean | below | lowest |", "| ---: |" + " ---: |" * 6]
    for seed, scores in by_seed.items():
        cells = []
        for who in ("cache", "informed"):
            of_best = [score.of_best(who) for score in scores]
            mean = statistics.fmean(getattr(score, who) for score in scores)
            cells += [f"{mean:.1%}", str(sum(share < WANTED_OF_BEST for share in of_best)), f"{min(of_best):.1%}"]
        lines.append(f"| {'committed' if seed is None else seed} | " + " | ".join(cells) + " |")
    every = [score for scores in by_seed.values() for score in scores]
    lines += ["", "| traces | of | cache below | informed below |", "| --- | ---: | ---: | ---: |"]
    for name in sorted({score.kind for score in every}):
        some = [score for score in every if score.kind == name]
        ours, theirs = (sum(score.of_best(who) < WANTED_OF_BEST for score in some) for who in ("cache", "informed"))
        lines += [f"| {name} | {len(some)} | {ours} | {theirs} |"] if ours or theirs else []
    return "\n".join(lines)


def groups(rng: random.Random, width: int, count: int, fit: int, length: int = 300) -> Trace:
    """*count* groups of *width* equal models by chance, as ``fixed_groups`` draws them, and room for *fit* models; one second each."""
    requests: list[str] = []
    while len(requests) < length:
        first = width * rng.randrange(count)
        requests += [f"m{first + index}" for index in range(width)]
    keys = [f"m{index}" for index in range(width * count)]
    return Trace("fixed groups", 2100 * fit, dict.fromkeys(keys, 2100), dict.fromkeys(keys, 1.0), tuple(requests))


def most_in_the_mean(width: int, count: int, fit: int, length: int = 300) -> float:
    """The most loads that any policy which does not know the draws can save in the mean on :func:`groups`.

    The models of a group come once each, so what it finds was kept when it began; each of *fit* models belongs to it with probability
    1/*count*.
    """
    return -(-length // width) * min(width, fit / count)


@dataclass(frozen=True)
class Luck:
    """Draws of one source of groups: the most any policy can save in the mean, and what the cache and the best of three saved on each."""

    name: str
    most: float
    cache: list[float]
    best: list[float]


def luck(source: tuple[int, int, int], draws: int) -> Luck:
    """*draws* traces of one source of groups."""
    width, count, fit = source
    rng = random.Random(5)
    made = [groups(rng, width, count, fit) for _ in range(draws)]
    cache = [sum(served(ChoosingPolicy(trace.cap), trace)) for trace in made]
    name = f"{count} groups of {width}, {fit} models fit"
    return Luck(name, most_in_the_mean(width, count, fit), cache, [best_of_three(trace) for trace in made])


def luck_report(found: Sequence[Luck]) -> str:
    """The draws as a Markdown table, in loads saved."""
    lines = ["| source | most in the mean | cache | best of three | over the most | cache below 95 % |", "| --- |" + " ---: |" * 5]
    for one in found:
        best, cache = statistics.fmean(one.best), statistics.fmean(one.cache)
        below = statistics.fmean(ours < WANTED_OF_BEST * other for ours, other in zip(one.cache, one.best))
        lines.append(f"| {one.name} | {one.most:.1f} | {cache:.1f} | {best:.1f} | {best / one.most:.1%} | {below:.0%} |")
    return "\n".join(lines)


def plot(by_seed: dict[int | None, list[Score]], path: pathlib.Path) -> None:
    """The lowest shares of the best of three, in order, for the cache and the informed policy, as a PNG."""
    from matplotlib import pyplot

    scores = [score for some in by_seed.values() for score in some]
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    for who in ("cache", "informed"):
        shares = sorted(100 * score.of_best(who) for score in scores)[:100]
        axes.plot(range(1, len(shares) + 1), shares, label=who)
    axes.axhline(100 * WANTED_OF_BEST, color="grey", linewidth=0.8)
    axes.set_xlabel(f"traces of {len(scores)}, the lowest first")
    axes.set_ylabel("% of the best of rates, LRU and MRU")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 77, 101, 202, 303], help="of the generated traces")
    parser.add_argument("--draws", type=int, default=100, metavar="N", help="of each source of groups (default: 100)")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG to write")
    options = parser.parse_args()
    by_seed = {seed: scores_of(seed) for seed in (None, *options.seeds)}
    print(report(by_seed), flush=True)
    if options.plot:
        plot(by_seed, options.plot)
    if options.draws:
        print("\n" + luck_report([luck(source, options.draws) for source in GROUP_SOURCES]))


if __name__ == "__main__":
    main()
