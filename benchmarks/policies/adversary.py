"""Why no policy keeps within 95 % of the best simple one on every trace: for each one, a trace on which it saves nothing.

    python benchmarks/policies/adversary.py [--models 5] [--fit 3] [--length 300]

Models of one size are asked for, and each time one that the policy does not keep; of those, one that LRU or MRU would have kept. A policy
that decides by what was asked for alone cannot help it. Every such trace may come of the generator *Zipf* (5 to 10 models), which draws
each request by itself.
"""

import argparse
import pathlib
import sys
from collections.abc import Collection
from typing import Protocol

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from policies.candidates import RatesOnly, served  # noqa: E402
from policies.traces import Trace  # noqa: E402
from policy import SimulatedCache, lru, mru  # noqa: E402

from comfy.ram_model_cache.policy import RamCachePolicy  # noqa: E402
from comfy.ram_model_cache.shadows import ChoosingPolicy  # noqa: E402

SIZE_MB, SECONDS = 2100, 2.2


class Cache(Protocol):
    """A cache of equal models; ``kept`` are the names of those in it."""

    kept: Collection[str]

    def ask(self, model: str) -> None:
        """*model* is asked for."""


class ByPolicy:
    """What *policy* keeps; any that decides by the requests so far."""

    def __init__(self, policy: RamCachePolicy, fit: int) -> None:
        self._cache = SimulatedCache(fit * SIZE_MB, policy)

    @property
    def kept(self) -> Collection[str]:
        """Their names."""
        return self._cache.kept

    def ask(self, model: str) -> None:
        """*model* is asked for."""
        self._cache.ask({model: (SIZE_MB, SECONDS)})


class ByAge:
    """LRU, or MRU where the *newest* goes."""

    def __init__(self, fit: int, newest: bool) -> None:
        self.kept: list[str] = []  # the one used last at the end
        self._fit, self._goes = fit, -1 if newest else 0

    def ask(self, model: str) -> None:
        """*model* is asked for."""
        if model in self.kept:
            self.kept.remove(model)
        elif len(self.kept) == self._fit:
            del self.kept[self._goes]
        self.kept.append(model)


def against(victim: Cache, models: int, fit: int, length: int) -> Trace:
    """*length* requests for *models* equal models, of which *fit* fit, each for one that *victim* does not keep.

    Of those, one that most of LRU and MRU keep, and of these the one asked for longest ago. Raises ``ValueError`` where *victim* keeps all.
    """
    order, requests, simple = [f"m{index}" for index in range(models)], [], (ByAge(fit, newest=False), ByAge(fit, newest=True))
    for _ in range(length):
        missing = [model for model in order if model not in victim.kept]
        if not missing:
            raise ValueError(f"it keeps {models} models where {fit} fit")
        chosen = max(missing, key=lambda model: sum(model in cache.kept for cache in simple))
        for cache in (victim, *simple):
            cache.ask(chosen)
        order.remove(chosen)
        order.append(chosen)
        requests.append(chosen)
    sizes = {f"m{index}": SIZE_MB for index in range(models)}
    return Trace("against a policy", fit * SIZE_MB, sizes, dict.fromkeys(sizes, SECONDS), tuple(requests))


def policies(fit: int) -> dict[str, RamCachePolicy]:
    """This project's policies by name; the last is what the server follows."""
    return {"rates": RatesOnly(), "plan": RamCachePolicy(), "cache": ChoosingPolicy(fit * SIZE_MB)}


def table(models: int, fit: int, length: int) -> str:
    """What each policy and each simple one saves on the trace made against it, in loads, as a Markdown table."""
    made = {name: against(ByPolicy(policy, fit), models, fit, length) for name, policy in policies(fit).items()}
    made |= {"LRU": against(ByAge(fit, newest=False), models, fit, length), "MRU": against(ByAge(fit, newest=True), models, fit, length)}
    lines = ["| trace against | it | rates | LRU | MRU |", "| --- |" + " ---: |" * 4]
    for name, trace in made.items():
        simple = {"rates": served(RatesOnly(), trace), "LRU": lru(trace), "MRU": mru(trace)}
        own = simple[name] if name in simple else served(policies(fit)[name], trace)
        lines.append(f"| {name} | " + " | ".join(f"{sum(run) / SECONDS:.0f}" for run in (own, *simple.values())) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=5, help="equal models that are asked for (default: 5)")
    parser.add_argument("--fit", type=int, default=3, help="how many of them fit (default: 3)")
    parser.add_argument("--length", type=int, default=300, help="requests (default: 300)")
    options = parser.parse_args()
    print(table(options.models, options.fit, options.length))


if __name__ == "__main__":
    main()
