"""The few servers of a large fleet that can be the best for a job: those idle soonest, in all and among those where a model is warm.

Looking at a thousand servers for every job would take a millisecond each time. Not thread-safe; standard library only.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping

from fleet.needs import Place

LOOKED_AT = 2
# Entries of a heap that stand for nothing any more are cleared out when there are more than this and than those that do.
SPARE_ENTRIES = 64

IdleAt = Callable[[str, float], float]


class SoonestIdle:
    """Servers in order of when they will be idle, which *idle_at_s* says of (server, now).

    That may grow unheard, by new jobs or because one is late: an entry holds the least that it can be, and is put right when it comes to
    the front. Whatever makes it less must be told.
    """

    def __init__(self, idle_at_s: IdleAt) -> None:
        self._idle_at_s = idle_at_s
        self._heap: list[tuple[float, str]] = []
        self._entries: dict[str, float] = {}

    def tell(self, server_id: str, idle_at_s: float) -> None:
        """*server_id* is one of these, and will be idle then."""
        known = self._entries.get(server_id)
        if known is None or idle_at_s < known:
            self._put(server_id, idle_at_s)
            if len(self._heap) > 2 * len(self._entries) + SPARE_ENTRIES:
                self._heap = [(at_s, one) for one, at_s in self._entries.items()]
                heapq.heapify(self._heap)

    def forget(self, server_id: str) -> None:
        """*server_id* is none of these any more."""
        self._entries.pop(server_id, None)

    def first(self, count: int, now_s: float) -> list[str]:
        """Up to *count* that are idle soonest, as far as is known at *now_s*, which never goes back."""
        found: list[tuple[float, str]] = []
        while self._heap and len(found) < count:
            entry = heapq.heappop(self._heap)
            at_s, server_id = entry
            if self._entries.get(server_id) != at_s or (found and found[-1] == entry):
                continue
            really_s = self._idle_at_s(server_id, now_s)
            if really_s > at_s:
                self._put(server_id, really_s)
            else:
                found.append(entry)
        for entry in found:
            heapq.heappush(self._heap, entry)
        return [server_id for _, server_id in found]

    def _put(self, server_id: str, idle_at_s: float) -> None:
        self._entries[server_id] = idle_at_s
        heapq.heappush(self._heap, (idle_at_s, server_id))


class Shortlist:
    """Finds them. It is told of every server that becomes idle sooner than was thought, and of what is warm there."""

    def __init__(self, idle_at_s: IdleAt) -> None:
        self._idle_at_s = idle_at_s
        self._all = SoonestIdle(idle_at_s)
        self._warm: dict[Place, SoonestIdle] = {}
        self._places: dict[str, frozenset[Place]] = {}

    def moved(self, server_id: str, idle_at_s: float) -> None:
        """*server_id* will be idle at *idle_at_s*."""
        self._all.tell(server_id, idle_at_s)
        for place in self._places.get(server_id, ()):
            self._warm[place].tell(server_id, idle_at_s)

    def warmed(self, server_id: str, warm: Mapping[Place, int]) -> None:
        """*warm*, and nothing else, is warm on *server_id* once all that was sent there has run; say :meth:`moved` next."""
        for place in self._places.get(server_id, frozenset()) - warm.keys():
            self._warm[place].forget(server_id)
        self._places[server_id] = frozenset(warm)
        for place in warm:
            if place not in self._warm:
                self._warm[place] = SoonestIdle(self._idle_at_s)

    def gone(self, server_id: str) -> None:
        """*server_id* is no longer there."""
        self._all.forget(server_id)
        for place in self._places.pop(server_id, ()):
            self._warm[place].forget(server_id)

    def candidates(self, needs: Iterable[Place], now_s: float) -> list[str]:
        """The servers worth a look for a job with *needs*, each once."""
        found = dict.fromkeys(self._all.first(LOOKED_AT, now_s))
        for place in needs:
            if place in self._warm:
                found.update(dict.fromkeys(self._warm[place].first(LOOKED_AT, now_s)))
        return list(found)
