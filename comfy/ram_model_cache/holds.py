"""Blocks in which a thread holds whatever it fetches. Portable: standard library only."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Holds:
    """Which keys each thread collects; a block inside another has keys of its own."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def keys(self) -> set[Hashable] | None:
        """The keys of this thread's innermost block, None outside."""
        keys: set[Hashable] | None = getattr(self._of_thread, "keys", None)
        return keys

    @contextmanager
    def block(self) -> Iterator[set[Hashable]]:
        """A block of this thread; gives the set that its keys go into."""
        before, keys = self.keys(), set[Hashable]()
        self._of_thread.keys = keys
        try:
            yield keys
        finally:
            self._of_thread.keys = before
