"""Blocks in which a thread holds whatever it fetches. Portable: standard library and the modules next to it."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from comfy.ram_model_cache.values import label_of
from comfy.units import megabytes


class NoRoom(Exception):
    """In a block of :class:`Holds`: what is fetched cannot be kept, and was therefore not read."""


class Holds:
    """Which keys each thread collects; a block inside another has keys of its own."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def keys(self) -> set[Hashable] | None:
        """The keys of this thread's innermost block, None outside."""
        keys: set[Hashable] | None = getattr(self._of_thread, "keys", None)
        return keys

    def insist(self, is_kept: bool, key: Hashable, size_bytes: int) -> None:
        """Inside a block, raise :class:`NoRoom` unless *key* is to be kept, which takes *size_bytes*."""
        if not is_kept and self.keys() is not None:
            raise NoRoom(f"{label_of(key)} would take {megabytes(size_bytes)}")

    @contextmanager
    def block(self) -> Iterator[set[Hashable]]:
        """A block of this thread; gives the set that its keys go into."""
        before, keys = self.keys(), set[Hashable]()
        self._of_thread.keys = keys
        try:
            yield keys
        finally:
            self._of_thread.keys = before
