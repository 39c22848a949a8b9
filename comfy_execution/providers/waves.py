"""The order in which a graph's nodes are looked up in external caches: from the outputs backwards, in waves.

Nothing above a hit is wanted, so one would ask level by level; in a deep graph of misses that costs a round trip per level. So each wave
takes twice as many levels as the one before, guessing that those on the way are misses. After seven levels of misses most likely all
that is left is missing too, so waves are large then: 200 levels take four waves. A hit on the first level costs nothing else; a hit
deeper down may have been asked for together with nodes above it.
"""

from collections.abc import Awaitable, Callable, Iterable

Parents = Callable[[str], Iterable[str]]
Test = Callable[[str], bool]
Ask = Callable[[list[str]], Awaitable[set[str]]]

GROWTH, LATER_GROWTH = 2, 64
# The first wave of this many levels is the last one that is small so that little is fetched that is not needed.
CAUTIOUS_LEVELS = 4


async def walk_in_waves(targets: Iterable[str], parents: Parents, is_local: Test, may_ask: Test, ask: Ask) -> set[str]:
    """The nodes that ``ask`` found and that are reached from *targets* through nodes without a result only.

    *is_local*: the node's result is here, so nothing above it is wanted. *may_ask*: the node can be outside at all; others are passed
    through at no cost. ``ask(nodes)`` looks nodes up at once and gives those found; no node is given to it twice. Time linear in the
    nodes and links that are looked at.
    """
    walk = _Walk(parents, is_local, may_ask)
    frontier = walk.advance(targets)
    levels = 1
    while frontier:
        wave = walk.take_levels(frontier, levels)
        walk.found |= await ask(wave)
        frontier = walk.advance(frontier)
        levels *= GROWTH if levels < CAUTIOUS_LEVELS else LATER_GROWTH
    return walk.hits


class _Walk:
    def __init__(self, parents: Parents, is_local: Test, may_ask: Test) -> None:
        self.found: set[str] = set()
        self.hits: set[str] = set()
        self._parents = parents
        self._is_local = is_local
        self._may_ask = may_ask
        self._looked_at: dict[str, tuple[bool, Iterable[str]]] = {}
        self._asked: set[str] = set()
        self._seen: set[str] = set()
        self._settled: set[str] = set()

    def take_levels(self, frontier: list[str], levels: int) -> list[str]:
        """The nodes of the next *levels* levels upward from *frontier* that can be asked for and have not been."""
        wave: list[str] = []
        level: Iterable[str] = frontier
        for _ in range(levels):
            askable = self._askable(level)
            if not askable:
                break
            wave += askable
            level = [parent for node_id in askable for parent in self._looked_at[node_id][1]]
        self._asked.update(wave)
        return wave

    def advance(self, start: Iterable[str]) -> list[str]:
        """Follow misses upward from *start*; the wanted nodes that were not asked for yet."""
        frontier: dict[str, None] = {}
        looked_at, asked, settled, found = self._looked_at, self._asked, self._settled, self.found
        waiting = list(start)
        while waiting:
            node_id = waiting.pop()
            if node_id in settled:
                continue
            can_be_asked, above = looked_at.get(node_id) or self._look_at(node_id)
            if can_be_asked and node_id not in asked:
                frontier[node_id] = None
                continue
            settled.add(node_id)
            if node_id in found:
                self.hits.add(node_id)
            elif above:
                waiting.extend(above)
        return list(frontier)

    def _askable(self, level: Iterable[str]) -> list[str]:
        askable: list[str] = []
        looked_at, seen = self._looked_at, self._seen
        waiting = list(level)
        while waiting:
            node_id = waiting.pop()
            if node_id in seen:
                continue
            seen.add(node_id)
            can_be_asked, above = looked_at.get(node_id) or self._look_at(node_id)
            if can_be_asked:
                askable.append(node_id)
            else:
                waiting.extend(above)
        return askable

    def _look_at(self, node_id: str) -> tuple[bool, Iterable[str]]:
        """Whether the node can be asked for, and the nodes above it; none above one whose result is here. Noted in ``_looked_at``."""
        known: tuple[bool, Iterable[str]] = (False, ())
        if not self._is_local(node_id):
            known = self._may_ask(node_id), tuple(self._parents(node_id))
        self._looked_at[node_id] = known
        return known
