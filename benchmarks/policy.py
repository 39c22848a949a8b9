"""What the RAM model cache's policy saves on traces of model requests, against LRU, MRU, size-weighted LRU and the optimum.

    python benchmarks/policy.py [--generated 1000] [--plot docs/images/policy.png] [--write-traces benchmarks/traces]

A trace is a list of requests; each key has a size and a reload cost. A request that finds its key saves the key's seconds. The
optimum is clairvoyant and may bypass: it is exact, by dynamic programming over the sets of keys kept (keys asked for once are never
worth keeping, which leaves at most 16).
"""

import argparse
import itertools
import json
import pathlib
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from comfy.ram_model_cache.policy import RamCachePolicy  # noqa: E402

OPTIMUM_KEYS = 16


@dataclass(frozen=True)
class Trace:
    """Requests by key, the size (MB) and reload cost (s) of each key, and the cap (MB)."""

    name: str
    cap: int
    sizes: dict[str, int]
    seconds: dict[str, float]
    requests: tuple[str, ...]
    cyclic: bool = False

    @classmethod
    def load(cls, path: pathlib.Path) -> "Trace":
        """The trace written in the JSON file *path*."""
        data = json.loads(path.read_text())
        models = data["models"]
        return cls(
            data["name"],
            data["cap_mb"],
            {key: model["mb"] for key, model in models.items()},
            {key: model["reload_s"] for key, model in models.items()},
            tuple(data["requests"]),
            data["cyclic"],
        )

    def dump(self) -> str:
        """The trace as the text of its JSON file."""
        models = {key: {"mb": self.sizes[key], "reload_s": self.seconds[key]} for key in self.sizes}
        return (
            json.dumps({"name": self.name, "cap_mb": self.cap, "cyclic": self.cyclic, "models": models, "requests": list(self.requests)})
            + "\n"
        )


Run = list[float]  # seconds saved by each request


class SimulatedCache:
    """The policy of this project with a cap, asked as the cache asks it: decide before the load, learn after it. No models."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.kept: dict[str, int] = {}
        self._policy = RamCachePolicy()

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
    if len(keys) > OPTIMUM_KEYS:
        raise ValueError(f"trace {trace.name} asks for {len(keys)} keys more than once; the exact optimum takes {OPTIMUM_KEYS}")
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


def _models(rng: random.Random, count: int, mixed: bool) -> tuple[dict[str, int], dict[str, float]]:
    """Sizes in MB and reload seconds; files of *mixed* size, dtype and disk, or all alike."""
    sizes = {f"m{index}": rng.choice([170, 320, 1700, 2100, 4800, 6500, 9800, 13600]) if mixed else 2100 for index in range(count)}
    return sizes, {key: round(size / 1000 * (rng.choice([0.3, 1.0, 3.0]) if mixed else 1.0) + 0.1, 3) for key, size in sizes.items()}


def _trace(rng: random.Random, name: str, requests: Sequence[str], count: int, share: float, mixed: bool, cyclic: bool = False) -> Trace:
    sizes, seconds = _models(rng, count, mixed)
    for index, key in enumerate(dict.fromkeys(requests)):
        if key not in sizes:  # one-off files of a batch
            sizes[key], seconds[key] = (2100, 2.2) if not mixed or index % 2 else (6500, 6.6)
    cap = max(int(share * sum(sizes[f"m{index}"] for index in range(count))), min(sizes.values()))
    return Trace(name, cap, sizes, seconds, tuple(requests), cyclic)


def ping_pong(rng: random.Random, mixed: bool = False, rounds: int = 30) -> Trace:
    """Two models in turn, and room for the larger one only."""
    sizes, seconds = _models(rng, 2, mixed)
    return Trace("ping-pong", max(sizes.values()), sizes, seconds, ("m0", "m1") * rounds, True)


def cycle(rng: random.Random, mixed: bool = False, rounds: int = 20) -> Trace:
    """k models in a fixed order, more than fit."""
    count = rng.randint(3, 8)
    return _trace(rng, f"cycle of {count}", [f"m{index}" for index in range(count)] * rounds, count, rng.uniform(0.3, 0.85), mixed, True)


def zipf(rng: random.Random, mixed: bool = False, length: int = 300) -> Trace:
    """Independent requests, the n-th most wanted key 1/n as often."""
    count = rng.randint(5, 10)
    keys = [f"m{index}" for index in range(count)]
    requests = rng.choices(keys, [1 / (rank + 1) for rank in range(count)], k=length)
    return _trace(rng, "Zipf", requests, count, rng.uniform(0.2, 0.7), mixed)


def bursts(rng: random.Random, mixed: bool = False, length: int = 300) -> Trace:
    """Runs of prompts on one base with changing LoRAs (base, then one of its small LoRA-merged text encoders), then another base."""
    count, requests = rng.randint(3, 6), []
    while len(requests) < length:
        base = rng.randrange(count)
        for _ in range(rng.randint(2, 12)):
            requests += [f"m{base}", f"m{count + rng.randrange(3)}"]
    return _trace(rng, "prompt bursts", requests, count + 3, rng.uniform(0.3, 0.7), mixed)


def nightly(rng: random.Random, mixed: bool = False, days: int = 6) -> Trace:
    """By day a few models by taste; by night a batch that touches many files once."""
    count, requests, serial = rng.randint(3, 6), [], itertools.count()
    weights = [1 / (rank + 1) for rank in range(count)]
    for _ in range(days):
        requests += rng.choices([f"m{index}" for index in range(count)], weights, k=rng.randint(20, 40))
        requests += [f"batch{next(serial)}" for _ in range(rng.randint(5, 15))]
    return _trace(rng, "nightly scan", requests, count, rng.uniform(0.4, 0.9), mixed)


def drift(rng: random.Random, mixed: bool = False, length: int = 320) -> Trace:
    """A working set that loses its oldest model and gains a new one every so often."""
    width, period, requests = rng.randint(2, 4), rng.randint(15, 40), []
    count = min(OPTIMUM_KEYS, width + length // period)
    for now in range(length):
        start = min(now // period, count - width)
        requests.append(f"m{start + rng.randrange(width)}")
    return _trace(rng, "drifting working set", requests, count, (width - rng.choice([0, 0, 1]) * 0.5) / count, mixed)


GENERATORS = (ping_pong, cycle, zipf, bursts, nightly, drift)


def committed(folder: pathlib.Path = PROJECT / "benchmarks" / "traces") -> list[Trace]:
    """The traces kept in the repository."""
    return [Trace.load(path) for path in sorted(folder.glob("*.json"))]


def after_three_rounds(trace: Trace) -> int:
    """Index of the first request after the third round of a cyclic trace."""
    return 3 * len(set(trace.requests))


def generated(count: int, seed: int = 20) -> list[Trace]:
    """*count* traces, each kind and both size mixes in turn."""
    rng = random.Random(seed)
    return [GENERATORS[index % len(GENERATORS)](rng, mixed=index // len(GENERATORS) % 2 == 1) for index in range(count)]


def write_traces(folder: pathlib.Path) -> None:
    """Generate the committed traces: each kind once with equal and once with mixed sizes."""
    for mixed in (False, True):
        for index, make in enumerate(GENERATORS):
            trace = make(random.Random(100 + index), mixed=mixed)
            name = f"{trace.name.replace(' ', '-').lower()}-{'mixed' if mixed else 'equal'}"
            data = Trace(name, trace.cap, trace.sizes, trace.seconds, trace.requests, trace.cyclic)
            (folder / f"{name}.json").write_text(data.dump())


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
