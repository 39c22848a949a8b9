"""The sources behind the generators of ``traces.py``, step by step, for one who knows them: their probabilities, not what they will draw.

A source is stepped like the generator it belongs to, and draws in the same order, so it gives the same requests for the same random
numbers. Its state says where it stands. ``forget`` draws anew whatever nobody can know yet (how long a burst will be, say), given what
was seen.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from policies import traces
from policies.traces import GENERATORS, NEW_GENERATORS, Generator, Trace, committed


@dataclass(frozen=True)
class Source:
    """*state* before the first request; *step*(rng, state) -> (key, state after it); *forget*(rng, state) -> a state as likely as that."""

    state: Any
    step: Callable[[random.Random, Any], tuple[str, Any]]
    forget: Callable[[random.Random, Any], Any] = lambda rng, state: state

    def states(self, rng: random.Random, length: int) -> Iterator[tuple[str, Any]]:
        """The first *length* requests that *rng* draws, each with the state after it."""
        state = self.state
        for _ in range(length):
            key, state = self.step(rng, state)
            yield key, state

    def future(self, rng: random.Random, state: Any, length: int) -> list[str]:
        """*length* requests as likely as any to follow *state*."""
        state, keys = self.forget(rng, state), []
        for _ in range(length):
            key, state = self.step(rng, state)
            keys.append(key)
        return keys


def _repeating(keys: Sequence[str]) -> Source:
    """*keys* over and over: nothing is left to chance."""
    return Source(0, lambda rng, place: (keys[place], (place + 1) % len(keys)))


def _names(count: int) -> list[str]:
    return [f"m{index}" for index in range(count)]


def _ping_pong(rng: random.Random) -> Source:
    return _repeating(("m0", "m1"))


def _cycle(rng: random.Random) -> Source:
    return _repeating(_names(rng.randint(3, 8)))


def _zig_zag(rng: random.Random) -> Source:
    forth = _names(rng.randint(4, 8))
    return _repeating(forth + rng.choice([forth[::-1], forth[-2:0:-1]]))


def _by_taste(rng: random.Random, keys: Sequence[str]) -> str:
    return rng.choices(keys, [1 / (rank + 1) for rank in range(len(keys))])[0]


def _zipf(rng: random.Random) -> Source:
    keys = _names(rng.randint(5, 10))
    return Source(None, lambda rng, state: (_by_taste(rng, keys), None))


@dataclass(frozen=True)
class _Burst:
    """The model it is about, how many requests of it are over, and how many there are in all."""

    model: int = 0
    done: int = 0
    total: int = 0

    def again(self, rng: random.Random, least: int, most: int) -> "_Burst":
        """The same, as long as it may turn out to be."""
        return replace(self, total=rng.randint(max(least, self.done), most)) if self.total else self


def _bursts(rng: random.Random) -> Source:
    count = rng.randint(3, 6)

    def step(rng: random.Random, state: tuple[_Burst, bool]) -> tuple[str, tuple[_Burst, bool]]:
        burst, extra = state
        if extra:
            return f"m{count + rng.randrange(3)}", (burst, False)
        if burst.done == burst.total:
            burst = _Burst(rng.randrange(count), 0, rng.randint(2, 12))
        return f"m{burst.model}", (replace(burst, done=burst.done + 1), True)

    return Source((_Burst(), False), step, lambda rng, state: (state[0].again(rng, 2, 12), state[1]))


def _repeats(rng: random.Random) -> Source:
    count = rng.randint(4, 8)

    def step(rng: random.Random, burst: _Burst) -> tuple[str, _Burst]:
        if burst.done == burst.total:
            burst = _Burst(rng.randrange(count), 0, rng.randint(2, 10))
        return f"m{burst.model}", replace(burst, done=burst.done + 1)

    return Source(_Burst(), step, lambda rng, burst: burst.again(rng, 2, 10))


@dataclass(frozen=True)
class _Day:
    """A day's and a night's requests, over and in all (0: not begun), and how many files were read at night so far."""

    day: _Burst = _Burst()
    night: _Burst = _Burst()
    serial: int = 0


def _nightly(rng: random.Random) -> Source:
    keys = _names(rng.randint(3, 6))

    def step(rng: random.Random, now: _Day) -> tuple[str, _Day]:
        if now.night.total and now.night.done == now.night.total:
            now = _Day(serial=now.serial)
        if not now.day.total:
            now = replace(now, day=_Burst(total=rng.randint(20, 40)))
        if now.day.done < now.day.total:
            return _by_taste(rng, keys), replace(now, day=replace(now.day, done=now.day.done + 1))
        if not now.night.total:
            now = replace(now, night=_Burst(total=rng.randint(5, 15)))
        return f"batch{now.serial}", replace(now, night=replace(now.night, done=now.night.done + 1), serial=now.serial + 1)

    def forget(rng: random.Random, now: _Day) -> _Day:
        return replace(now, night=now.night.again(rng, 5, 15)) if now.night.total else replace(now, day=now.day.again(rng, 20, 40))

    return Source(_Day(), step, forget)


def _drift(rng: random.Random, length: int = 320) -> Source:
    width, period = rng.randint(2, 4), rng.randint(15, 40)
    last = min(traces.MOST_KEYS, width + length // period) - width
    return Source(0, lambda rng, now: (f"m{min(now // period, last) + rng.randrange(width)}", now + 1))


def _fixed_groups(rng: random.Random) -> Source:
    width = rng.randint(2, 3)
    count = rng.randint(3, traces.MOST_KEYS // width)

    def step(rng: random.Random, state: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        first, place = state
        first = width * rng.randrange(count) if place == 0 else first
        return f"m{first + place}", (first, (place + 1) % width)

    return Source((0, 0), step)


@dataclass(frozen=True)
class _Phase:
    """Some models in a shape (0 a cycle, 1 a zig-zag, 2 by taste), the requests of it, and how many are over."""

    some: tuple[str, ...] = ()
    shape: int = 0
    keys: tuple[str, ...] = ()
    done: int = 0


def _phases(rng: random.Random) -> Source:
    count = rng.randint(5, 8)

    def drawn(rng: random.Random, some: Sequence[str], steps: int) -> tuple[tuple[str, ...], ...]:
        by_taste = rng.choices(some, [1 / (rank + 1) for rank in range(len(some))], k=steps)
        return tuple((list(some) * steps)[:steps]), tuple(([*some, *some[::-1]] * steps)[:steps]), tuple(by_taste)

    def step(rng: random.Random, phase: _Phase) -> tuple[str, _Phase]:
        if phase.done == len(phase.keys):
            some = tuple(f"m{index}" for index in rng.sample(range(count), rng.randint(3, count)))
            shapes = drawn(rng, some, rng.randint(40, 90))
            shape = rng.choice(range(3))
            phase = _Phase(some, shape, shapes[shape])
        return phase.keys[phase.done], replace(phase, done=phase.done + 1)

    def forget(rng: random.Random, phase: _Phase) -> _Phase:
        if not phase.keys:
            return phase
        return replace(
            phase, keys=phase.keys[: phase.done] + drawn(rng, phase.some, rng.randint(max(40, phase.done), 90))[phase.shape][phase.done :]
        )

    return Source(_Phase(), step, forget)


def _hot_pair(rng: random.Random) -> Source:
    count = rng.randint(5, 9)

    def step(rng: random.Random, state: tuple[int, int, bool]) -> tuple[str, tuple[int, int, bool]]:
        place, other, third = state
        if place == 2 and third:
            return f"m{other}", (0, other + 1 if other + 1 < count else 2, False)
        if place == 1:
            return "m1", (2, other, third)
        return "m0", (1, other, rng.random() < 0.7)

    def forget(rng: random.Random, state: tuple[int, int, bool]) -> tuple[int, int, bool]:
        return (*state[:2], rng.random() < 0.7) if state[0] else state

    return Source((0, 2, False), step, forget)


SOURCES: dict[Generator, Callable[[random.Random], Source]] = {
    traces.ping_pong: _ping_pong,
    traces.cycle: _cycle,
    traces.zipf: _zipf,
    traces.bursts: _bursts,
    traces.nightly: _nightly,
    traces.drift: _drift,
    traces.zig_zag: _zig_zag,
    traces.fixed_groups: _fixed_groups,
    traces.phases: _phases,
    traces.hot_pair: _hot_pair,
    traces.repeats: _repeats,
}


@dataclass(frozen=True)
class Sourced:
    """A trace, the source that drew it, and where that stood after each request."""

    trace: Trace
    source: Source
    states: tuple[Any, ...]


def _sourced(trace: Trace, make: Generator, rng: random.Random) -> Sourced:
    """*trace*, for which *make* used *rng* as it is now. Raises ``ValueError`` where the source draws otherwise."""
    source = SOURCES[make](rng)
    keys, states = zip(*source.states(rng, len(trace.requests)))
    if keys != trace.requests:
        raise ValueError(f"the source of {trace.name} is not the one that drew it")
    return Sourced(trace, source, states)


def sourced_committed() -> list[Sourced]:
    """The traces kept in the repository."""
    by_name, found = {trace.name: trace for trace in committed()}, []
    for mixed in (False, True):
        for index, make in enumerate(GENERATORS):
            name = make(random.Random(100 + index), mixed=mixed).name.replace(" ", "-").lower()
            trace = by_name[f"{name}-{'mixed' if mixed else 'equal'}"]
            found.append(_sourced(trace, make, random.Random(100 + index)))
    return found


def sourced_generated(count: int, seed: int) -> list[Sourced]:
    """The traces that ``generated`` makes of all kinds."""
    rng, again, found = random.Random(seed), random.Random(), []
    generators = (*GENERATORS, *NEW_GENERATORS)
    for index in range(count):
        make = generators[index % len(generators)]
        again.setstate(rng.getstate())
        found.append(_sourced(make(rng, index // len(generators) % 2 == 1), make, again))
    return found
