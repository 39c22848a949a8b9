"""Which models are kept: as many as fit under a cap, chosen by the loading time that they are expected to save.

A model is worth the seconds that loading it took, divided by the number of loads after which it is expected to be asked for again, and
by its size. That number is the mean of its own past gaps; as long as it has none, the mean of everybody's. It is never less than what
has passed since, so that what is no longer asked for makes way. A newcomer that is worth less than what is there is not kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

REMEMBERED = 512
GAPS = 4


@dataclass
class Past:
    """When a key was asked for: the last time, and the gaps between the last few, in loads."""

    last: int
    gaps: list[int] = field(default_factory=list)


@dataclass
class Entry:
    """A kept value. *size_bytes* is measured anew whenever it is asked for: models grow and shrink in memory."""

    value: Any
    seconds: float
    size_bytes: Callable[[], int]


class WorthCache:
    """Values by key. Not for several threads at once."""

    def __init__(self, cap_bytes: int) -> None:
        self.cap_bytes = cap_bytes
        self.entries: dict[Hashable, Entry] = {}
        self._pasts: OrderedDict[Hashable, Past] = OrderedDict()
        self._now = 0

    def ask(self, keys: list[Hashable]) -> dict[Hashable, Any]:
        """The kept values of *keys*, which are asked for together."""
        self._now += 1
        for key in keys:
            past = self._pasts.pop(key, None)
            if past is None:
                past = Past(self._now)
            else:
                past.gaps = [*past.gaps, self._now - past.last][-GAPS:]
                past.last = self._now
            self._pasts[key] = past
        while len(self._pasts) > max(REMEMBERED, len(self.entries) + len(keys)):
            self._pasts.pop(next(key for key in self._pasts if key not in self.entries))
        return {key: self.entries[key].value for key in keys if key in self.entries}

    def put(self, key: Hashable, entry: Entry) -> list[Hashable]:
        """Keep *entry* if it is worth it; returns what is not kept any more, it itself among it if so."""
        self.entries[key] = entry
        return self.shrink(self.cap_bytes)

    def shrink(self, cap_bytes: float) -> list[Hashable]:
        """Let go of what is worth least, until the rest is no more than *cap_bytes*; returns the keys."""
        sizes = {key: entry.size_bytes() for key, entry in self.entries.items()}
        if sum(sizes.values()) <= cap_bytes:
            return []
        left, usual = cap_bytes, self._usual_gap()
        gone = []
        for key in sorted(sizes, key=lambda key: self._worth(key, sizes[key], usual), reverse=True):
            if sizes[key] <= left:
                left -= sizes[key]
            else:
                gone.append(key)
                del self.entries[key]
        return gone

    def drop(self, key: Hashable) -> None:
        """Let go of one."""
        del self.entries[key]

    def _usual_gap(self) -> float:
        gaps = [gap for past in self._pasts.values() for gap in past.gaps]
        return sum(gaps) / len(gaps) if gaps else float(max(1, len(self._pasts)))

    def _worth(self, key: Hashable, size_bytes: int, usual: float) -> float:
        past = self._pasts[key]
        gap = sum(past.gaps) / len(past.gaps) if past.gaps else usual
        return self.entries[key].seconds / max(1.0, gap, self._now - past.last) / max(1, size_bytes)
