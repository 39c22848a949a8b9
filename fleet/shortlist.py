"""The few servers of a large fleet that can be the best for a job: those idle soonest, in all and among those where a model is warm.

Looking at a thousand servers for every job would take a millisecond each time. Not thread-safe; standard library only.
"""

import heapq
from collections.abc import Iterable, Mapping

from fleet.needs import Place

LOOKED_AT = 2


class SoonestIdle:
    """Servers in order of when they will be idle. What is told is kept until something else is told of the same server."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._told: dict[str, float] = {}

    def tell(self, server_id: str, idle_at_s: float) -> None:
        """*server_id* will be idle then."""
        if self._told.get(server_id) != idle_at_s:
            self._told[server_id] = idle_at_s
            heapq.heappush(self._heap, (idle_at_s, server_id))

    def forget(self, server_id: str) -> None:
        """*server_id* is none of these any more."""
        self._told.pop(server_id, None)

    def first(self, count: int) -> list[str]:
        """Up to *count* that are idle soonest."""
        found: list[tuple[float, str]] = []
        while self._heap and len(found) < count:
            one = heapq.heappop(self._heap)
            if self._told.get(one[1]) == one[0] and (not found or found[-1] != one):
                found.append(one)
        for one in found:
            heapq.heappush(self._heap, one)
        return [server_id for _, server_id in found]


class Shortlist:
    """Finds them. It is told of every change of a server: when that is idle, and what is warm there."""

    def __init__(self) -> None:
        self._all = SoonestIdle()
        self._warm: dict[Place, SoonestIdle] = {}
        self._places: dict[str, frozenset[Place]] = {}

    def moved(self, server_id: str, idle_at_s: float, warm: Mapping[Place, int]) -> None:
        """*server_id* will be idle at *idle_at_s*, and *warm* is warm there then."""
        self._all.tell(server_id, idle_at_s)
        before = self._places.get(server_id, frozenset())
        if before != warm.keys():
            for place in before - warm.keys():
                self._warm[place].forget(server_id)
            self._places[server_id] = frozenset(warm)
        for place in warm:
            if place not in self._warm:
                self._warm[place] = SoonestIdle()
            self._warm[place].tell(server_id, idle_at_s)

    def gone(self, server_id: str) -> None:
        """*server_id* is no longer there."""
        self._all.forget(server_id)
        for place in self._places.pop(server_id, ()):
            self._warm[place].forget(server_id)

    def candidates(self, needs: Iterable[Place]) -> list[str]:
        """The servers worth a look for a job with *needs*, each once."""
        found = dict.fromkeys(self._all.first(LOOKED_AT))
        for place in needs:
            if place in self._warm:
                found.update(dict.fromkeys(self._warm[place].first(LOOKED_AT)))
        return list(found)
