"""Which clones of the cached models are alive. Portable: standard library only."""

from __future__ import annotations

import weakref
from collections import deque

from comfy.ram_model_cache.models import Patcher
from comfy.ram_model_cache.values import Entry


class CloneWatch:
    """Knows from weak references which clones of which entries are alive; an entry with living clones is in use.

    The callbacks only append to a deque, so that a collection may come at any moment; :meth:`note_deaths` reads it. The cache's lock
    guards everything else.
    """

    def __init__(self) -> None:
        self._ended: deque[weakref.ref[Patcher]] = deque()
        self._watched: dict[int, tuple[weakref.ref[Patcher], Entry]] = {}

    def add(self, entry: Entry, patcher: Patcher) -> None:
        """Count *entry* as in use until *patcher*, a clone's, dies."""
        watch = weakref.ref(patcher, self._ended.append)
        self._watched[id(watch)] = (watch, entry)
        entry.watches.add(id(watch))

    def note_deaths(self) -> None:
        """Take the clones that died since the last call off their entries."""
        while self._ended:
            watch = id(self._ended.popleft())
            if watch in self._watched:
                self._watched.pop(watch)[1].watches.discard(watch)

    def forget(self, entry: Entry) -> None:
        """Watch no clone of *entry* any more."""
        for watch in entry.watches:
            del self._watched[watch]
        entry.watches.clear()

    def ids(self) -> set[int]:
        """Of all watches, as entries name them."""
        return set(self._watched)
