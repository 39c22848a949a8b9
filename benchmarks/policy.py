"""What the RAM model cache's policy saves on traces of model requests, against LRU, MRU, size-weighted LRU and the optimum.

    python benchmarks/policy.py [--generated 1000] [--plot docs/images/policy.png] [--write-traces benchmarks/traces]

A trace is a list of requests; each key has a size and a reload cost. A request that finds its key saves the key's seconds. The
optimum is clairvoyant and may bypass: it is exact, by dynamic programming over the sets of keys kept (keys asked for once are never
worth keeping, which leaves at most 16).
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from policies.traces import MOST_KEYS, Trace, committed, generated, write_traces  # noqa: E402

from comfy.ram_model_cache.policy import RamCachePolicy  # noqa: E402
from comfy.ram_model_cache.shadows import ChoosingPolicy  # noqa: E402

Run = list[float]  # seconds saved by each request


class SimulatedCache:
    """A policy with a cap, by default this project's, asked as the cache asks it: decide before the load, learn after it. No models."""

    def __init__(self, cap: int, policy: RamCachePolicy | None = None) -> None:
        self.cap = cap
        self.kept: dict[str, int] = {}
        self._policy = policy or ChoosingPolicy(cap)

    def ask(self, parts: Mapping[str, tuple[int, float]]) -> set[str]:
        """Ask for *parts*, {key: (size, reload seconds)}, of one file at once; returns those that had to be read."""
        for key in parts:
            self._policy.request(key)
        missing = [key for key in parts if key not in self.kept]
        admitted: dict[str, int] = {}
        for key in missing:
            size = parts[key][0]
            decision = self._policy.decide(key, size, self.cap - sum(admitted.values()), self.kept)
            for victim in decision.victims:
                del self.kept[victim]
            if decision.admit:
                admitted[key] = size
        for key in missing:
            self._policy.learn(key, *parts[key])
        self.kept.update(admitted)
        assert sum(self.kept.values()) <= self.cap
        return set(missing)


def keepwarm(trace: Trace) -> Run:
    """The policy of this project, one key at a time."""
    cache = SimulatedCache(trace.cap)
    return [0.0 if cache.ask({key: (trace.sizes[key], trace.seconds[key])}) else trace.seconds[key] for key in trace.requests]


def _by_victim(choose: Callable[[Trace, dict[str, int], int], str]) -> Callable[[Trace], Run]:
    """A policy that admits whatever can fit and evicts what *choose*(trace, last use by key, now) names until it does."""

    def run(trace: Trace) -> Run:
        kept: dict[str, int] = {}
        saved = []
        for now, key in enumerate(trace.requests):
            saved.append(trace.seconds[key] if key in kept else 0.0)
            if key not in kept and trace.sizes[key] <= trace.cap:
                while sum(trace.sizes[other] for other in kept) + trace.sizes[key] > trace.cap:
                    del kept[choose(trace, kept, now)]
                kept[key] = now
            elif key in kept:
                kept[key] = now
        return saved

    return run


lru = _by_victim(lambda trace, kept, now: min(kept, key=kept.__getitem__))
mru = _by_victim(lambda trace, kept, now: max(kept, key=kept.__getitem__))
size_weighted_lru = _by_victim(lambda trace, kept, now: max(kept, key=lambda key: (now - kept[key]) * trace.sizes[key]))


def optimum(trace: Trace, first_counted: int = 0) -> float:
    """The most seconds any policy that knows the future can save in the requests from *first_counted* on; exact.

    State: the set of kept keys, as a bit mask; best[mask] = most saved so far by holding at least that set. Raises ``ValueError``
    when more than 16 keys are asked for twice.
    """
    keys = [key for key in dict.fromkeys(trace.requests) if trace.requests.count(key) > 1 and trace.sizes[key] <= trace.cap]
    if len(keys) > MOST_KEYS:
        raise ValueError(f"trace {trace.name} asks for {len(keys)} keys more than once; the exact optimum takes {MOST_KEYS}")
    masks = numpy.arange(1 << len(keys))
    total = sum(((masks >> bit) & 1) * trace.sizes[key] for bit, key in enumerate(keys)) if keys else numpy.zeros(1)
    fits = total <= trace.cap
    best = numpy.where(masks == 0, 0.0, -numpy.inf)
    position = {key: bit for bit, key in enumerate(keys)}
    for now, key in enumerate(trace.requests):
        if key not in position:
            continue
        bit = 1 << position[key]
        without = masks[(masks & bit) == 0]
        gain = trace.seconds[key] if now >= first_counted else 0.0
        kept = numpy.where(fits[without | bit], numpy.maximum(best[without | bit] + gain, best[without]), -numpy.inf)
        best[without | bit] = kept
        best[without] = numpy.maximum(best[without], kept)
        for other in range(len(keys)):
            lacking = masks[(masks & (1 << other)) == 0]
            best[lacking] = numpy.maximum(best[lacking], best[lacking | (1 << other)])
    return float(best.max())


POLICIES: dict[str, Callable[[Trace], Run]] = {"keepwarm": keepwarm, "LRU": lru, "MRU": mru, "size-weighted LRU": size_weighted_lru}


def after_three_rounds(trace: Trace) -> int:
    """Index of the first request after the third round of a cyclic trace."""
    return 3 * len(set(trace.requests))


@dataclass(frozen=True)
class Row:
    """One trace: what the optimum saves in seconds, what each policy saves, and the share of the optimum after three rounds."""

    trace: Trace
    optimum_s: float
    saved_s: dict[str, float]
    late_share: float | None


def measure(trace: Trace) -> Row:
    """Run every policy and the optimum on *trace*."""
    runs = {name: policy(trace) for name, policy in POLICIES.items()}
    late = None
    if trace.cyclic:
        start = after_three_rounds(trace)
        late_optimum = optimum(trace, start)
        late = sum(runs["keepwarm"][start:]) / late_optimum if late_optimum else 1.0
    return Row(trace, optimum(trace), {name: sum(saved) for name, saved in runs.items()}, late)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table of shares of the optimum."""
    lines = ["| trace | optimum, s saved | " + " | ".join(POLICIES) + " | after 3 rounds |", "| --- |" + " ---: |" * (len(POLICIES) + 2)]
    for row in rows:
        shares = " | ".join(f"{row.saved_s[name] / row.optimum_s:.0%}" for name in POLICIES)
        late = "" if row.late_share is None else f"{row.late_share:.0%}"
        lines.append(f"| {row.trace.name} | {row.optimum_s:.0f} | {shares} | {late} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Bars: each policy's share of the optimum on each trace, as a PNG."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 5))
    width = 0.8 / len(POLICIES)
    for index, name in enumerate(POLICIES):
        shares = [row.saved_s[name] / row.optimum_s for row in rows]
        axes.bar([place + index * width for place in range(len(rows))], shares, width, label=name)
    axes.set_xticks([place + 0.3 for place in range(len(rows))], [row.trace.name for row in rows], rotation=35, ha="right")
    axes.set_ylabel("seconds saved / clairvoyant optimum")
    axes.set_ylim(0, 1.02)
    axes.legend(ncols=len(POLICIES), loc="upper center", bbox_to_anchor=(0.5, 1.1), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def shortfalls(rows: Sequence[Row], many: Sequence[Trace]) -> tuple[list[str], dict[str, float]]:
    """What breaks the bounds this project promises, and each policy's mean seconds saved over the generated traces *many*."""
    found = [
        f"{row.trace.name}: {row.late_share:.1%} of the optimum after three rounds, 90 % promised"
        for row in rows
        if row.late_share is not None and row.late_share < 0.9
    ]
    found += [
        f"{row.trace.name}: {row.saved_s['keepwarm']:.1f} s saved, LRU {row.saved_s['LRU']:.1f} s, 95 % promised"
        for row in rows
        if row.saved_s["keepwarm"] < 0.95 * row.saved_s["LRU"]
    ]
    means = {name: statistics.fmean(sum(POLICIES[name](trace)) for trace in many) if many else 0.0 for name in ("keepwarm", "LRU")}
    if means["keepwarm"] < means["LRU"]:
        found.append(f"mean over {len(many)} generated traces: {means['keepwarm']:.1f} s, LRU {means['LRU']:.1f} s")
    return found, means


def main() -> None:
    """Print the table and the means; exit with an error where a promised bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generated", type=int, default=1000, metavar="N", help="generated traces to average over (default: 1000)")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG to write")
    parser.add_argument("--write-traces", type=pathlib.Path, metavar="DIR", help="write the committed traces anew, then go on")
    options = parser.parse_args()
    if options.write_traces:
        write_traces(options.write_traces)
    rows = [measure(trace) for trace in committed(options.write_traces or PROJECT / "benchmarks" / "traces")]
    broken, means = shortfalls(rows, generated(options.generated))
    print(table(rows))
    print(f"\nmean over {options.generated} generated traces: " + ", ".join(f"{name} {saved:.1f} s" for name, saved in means.items()))
    if options.plot:
        plot(rows, options.plot)
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
