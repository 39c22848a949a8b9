"""Traces of model requests for ``benchmarks/policy.py``: those kept in the repository, and generators of the shapes known to matter."""

import itertools
import json
import pathlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PROJECT = pathlib.Path(__file__).resolve().parents[2]
MOST_KEYS = 16  # that are asked for twice: the exact optimum takes no more


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


Generator = Callable[[random.Random, bool], Trace]


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
    count = min(MOST_KEYS, width + length // period)
    for now in range(length):
        start = min(now // period, count - width)
        requests.append(f"m{start + rng.randrange(width)}")
    return _trace(rng, "drifting working set", requests, count, (width - rng.choice([0, 0, 1]) * 0.5) / count, mixed)


def zig_zag(rng: random.Random, mixed: bool = False, rounds: int = 14) -> Trace:
    """k models forth and back, those at the ends once or twice in a row."""
    count = rng.randint(4, 8)
    forth = [f"m{index}" for index in range(count)]
    back = rng.choice([forth[::-1], forth[-2:0:-1]])
    return _trace(rng, "zig-zag", (forth + back) * rounds, count, rng.uniform(0.3, 0.85), mixed)


def fixed_groups(rng: random.Random, mixed: bool = False, length: int = 300) -> Trace:
    """Groups of two or three models that are always asked for together, one group after another by chance."""
    width = rng.randint(2, 3)
    count, requests = rng.randint(3, MOST_KEYS // width), []
    while len(requests) < length:
        first = width * rng.randrange(count)
        requests += [f"m{first + index}" for index in range(width)]
    return _trace(rng, "fixed groups", requests, count * width, rng.uniform(0.3, 0.8), mixed)


def phases(rng: random.Random, mixed: bool = False, length: int = 320) -> Trace:
    """A cycle, a zig-zag or requests by taste over some of the models, each for a while, then over others."""
    count, requests = rng.randint(5, 8), []
    while len(requests) < length:
        some = [f"m{index}" for index in rng.sample(range(count), rng.randint(3, count))]
        steps = rng.randint(40, 90)
        shapes = (some * steps, (some + some[::-1]) * steps, rng.choices(some, [1 / (rank + 1) for rank in range(len(some))], k=steps))
        requests += rng.choice(shapes)[:steps]
    return _trace(rng, "shifting phases", requests, count, rng.uniform(0.3, 0.8), mixed)


def hot_pair(rng: random.Random, mixed: bool = False, length: int = 300) -> Trace:
    """Two models in turn, and mostly one more after them: the next of a long cycle."""
    count, requests = rng.randint(5, 9), []
    others = itertools.cycle(range(2, count))
    while len(requests) < length:
        requests += ["m0", "m1"] + ([f"m{next(others)}"] if rng.random() < 0.7 else [])
    return _trace(rng, "hot pair with scan", requests, count, rng.uniform(0.3, 0.7), mixed)


def repeats(rng: random.Random, mixed: bool = False, length: int = 300) -> Trace:
    """Bursts: one model several times in a row, then another by chance."""
    count, requests = rng.randint(4, 8), []
    while len(requests) < length:
        requests += [f"m{rng.randrange(count)}"] * rng.randint(2, 10)
    return _trace(rng, "bursts", requests, count, rng.uniform(0.3, 0.7), mixed)


GENERATORS = (ping_pong, cycle, zipf, bursts, nightly, drift)  # the committed ones come of these
NEW_GENERATORS = (zig_zag, fixed_groups, phases, hot_pair, repeats)


def committed(folder: pathlib.Path = PROJECT / "benchmarks" / "traces") -> list[Trace]:
    """The traces kept in the repository."""
    return [Trace.load(path) for path in sorted(folder.glob("*.json"))]


def generated(count: int, seed: int = 20, generators: Sequence[Generator] = GENERATORS) -> list[Trace]:
    """*count* traces of *generators*, each kind and both size mixes in turn."""
    rng = random.Random(seed)
    return [generators[index % len(generators)](rng, index // len(generators) % 2 == 1) for index in range(count)]


def write_traces(folder: pathlib.Path) -> None:
    """Generate the committed traces: each kind once with equal and once with mixed sizes."""
    for mixed in (False, True):
        for index, make in enumerate(GENERATORS):
            trace = make(random.Random(100 + index), mixed=mixed)
            name = f"{trace.name.replace(' ', '-').lower()}-{'mixed' if mixed else 'equal'}"
            data = Trace(name, trace.cap, trace.sizes, trace.seconds, trace.requests, trace.cyclic)
            (folder / f"{name}.json").write_text(data.dump())
