"""Memory of weights that were dropped, kept for the next load: touching it again costs a fraction of what fresh memory does.

It stays for moments only. An eviction gives back what the load it made room for did not take over; any other drop's memory goes back
before models are used, at the end of the prompt, or when memory is asked for. Until then it counts as free, because it can be had: a load
never makes the process larger by more than what is missing here. ``MADV_FREE`` would let the system take it by itself, but pages written
again after that are still counted as free by the system (seen on Linux 6.18: a process under a limit was killed for it).
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import threading
from collections import deque


class SpareMemory:
    """Private anonymous mappings that nobody uses. Any thread may call any method; :meth:`give` takes no lock: finalizers call it."""

    def __init__(self) -> None:
        self._kept: deque[mmap.mmap] = deque()
        self._taking = threading.Lock()

    def give(self, mapping: mmap.mmap) -> None:
        """Keep *mapping*, which nothing looks into any more."""
        self._kept.append(mapping)

    def take(self, size_bytes: int) -> tuple[mmap.mmap, int]:
        """A mapping of *size_bytes*, and how many of its first bytes were in use before and hold anything; the rest is zeroed.

        The kept mapping closest in size, cut or extended, else a new one. What is missing is given back from the others first.
        Raises ``OSError`` when there is no memory.
        """
        with self._taking:
            found = min(list(self._kept), key=lambda mapping: abs(len(mapping) - size_bytes), default=None)
            if found is not None:
                self._kept.remove(found)
                used_bytes = min(size_bytes, len(found))
                self._give_back(size_bytes - used_bytes)
                if _resize(found, size_bytes):
                    return found, used_bytes
        made = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        made[0] = 0  # Linux joins parts that had different advice again only if the whole was touched before it was split
        return made, 0

    def release(self) -> int:
        """Give everything back to the system; returns how many bytes."""
        with self._taking:
            return self._give_back(self.total_bytes())

    def total_bytes(self) -> int:
        """Bytes kept now."""
        return sum(len(mapping) for mapping in list(self._kept))

    def _give_back(self, wanted_bytes: int) -> int:
        """Give *wanted_bytes* back to the system, or all there is; returns how many were."""
        given_bytes = 0
        while given_bytes < wanted_bytes and self._kept:
            mapping = self._kept.popleft()
            before_bytes, left_bytes = len(mapping), len(mapping) - (wanted_bytes - given_bytes)
            if left_bytes > 0 and _resize(mapping, left_bytes):
                self._kept.append(mapping)
                given_bytes += before_bytes - left_bytes
            else:
                mapping.close()
                given_bytes += before_bytes
        return given_bytes


def _resize(mapping: mmap.mmap, size_bytes: int) -> bool:
    """Whether *mapping* now has *size_bytes*; if not, it is gone."""
    with contextlib.suppress(OSError, ValueError):
        if size_bytes > len(mapping):
            mapping.madvise(mmap.MADV_NOHUGEPAGE)  # only a mapping with one kind of advice throughout can grow
        if size_bytes != len(mapping):
            mapping.resize(size_bytes)
        return True
    mapping.close()
    return False


@functools.cache
def spare_memory() -> SpareMemory:
    """The process's own."""
    return SpareMemory()
