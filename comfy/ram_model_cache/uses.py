"""Operations on entries in progress. Portable: standard library only."""

from __future__ import annotations

from typing import Any

from comfy.ram_model_cache.values import Entry


class Use:
    """One operation on an entry, which stays in the books meanwhile. Begun and ended under the cache's lock.

    *entry* is None before the begin, after the end, and where the operation found none. *value* is the entry's value: whoever copies it
    from here into a variable keeps the model.
    """

    __slots__ = ("entry", "value")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.value: Any = None

    def begin(self, entry: Entry) -> None:
        """Count as a user of *entry*."""
        self.entry, self.value = entry, entry.value
        entry.busy += 1

    def end(self) -> None:
        """Count no more; does nothing the second time."""
        entry, self.entry, self.value = self.entry, None, None
        if entry is not None:
            entry.busy -= 1
