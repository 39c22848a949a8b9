"""Loads in progress in the RAM model cache, and the room set aside for them. Portable: standard library and the modules next to it."""

from __future__ import annotations

from collections.abc import Hashable

from comfy.ram_model_cache.states import State
from comfy.ram_model_cache.values import Entry


class Reservations:
    """Entries that are RESERVED, by key. The cache's lock guards it."""

    def __init__(self) -> None:
        self._loading: dict[Hashable, Entry] = {}

    def begin(self, key: Hashable, size_bytes: int, hold: bool = False, refusal: str = "") -> None:
        """*key* is being loaded, estimated to take *size_bytes*; no room is set aside with a *refusal*. Ends an earlier load of it."""
        self.end(key)
        entry = self._loading[key] = Entry(key, hold, size_bytes, refusal)
        entry.become(State.RESERVED)

    def end(self, key: Hashable) -> None:
        """The load of *key*, if there is one, gave nothing."""
        entry = self._loading.pop(key, None)
        if entry is not None:
            entry.become(State.ABSENT)

    def take(self, key: Hashable, hold: bool = False) -> Entry:
        """The entry of *key*, whose load is done; a new one for a load that nobody announced."""
        entry = self._loading.pop(key, None)
        if entry is None:
            entry = Entry(key, hold)
            entry.become(State.RESERVED)
        return entry

    def reserved_bytes(self) -> int:
        """Bytes set aside for what is to be kept."""
        return sum(entry.estimated_bytes for entry in self._loading.values() if not entry.refusal)

    def loading_bytes(self) -> int:
        """Bytes that all loads together will take."""
        return sum(max(0, entry.estimated_bytes) for entry in self._loading.values())
