"""A card's memory: what lives on it, what is still free, and when it is said to be full."""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from pretend.streams import Queue, Uses

MIB = 1 << 20
GRAIN = 512  # the caching allocator's
Refusal = Callable[[int, int], bool]


@dataclass(slots=True, eq=False)
class Block:
    """One storage on a card: its bytes, the stream it was made on, who used it."""

    size_bytes: int
    serial: int
    home: Queue
    uses: Uses = field(default_factory=Uses)
    alive: bool = True


class Card:
    """One card of *capacity_bytes*. Bytes are counted by living storages, views once; freed memory stays reserved until it is trimmed.

    ``refuses(bytes, serial)`` is asked at every allocation: true is out of memory; it may raise something else. ``faults`` collects what
    was noticed where nothing can be raised. ``counters`` count kernels, copies, synchronisations. Any thread.
    """

    def __init__(self, index: int, capacity_bytes: int, default: Queue) -> None:
        self.index, self.capacity_bytes, self.default = index, capacity_bytes, default
        self.device = torch.device("cuda", index)
        self.counters: collections.Counter[str] = collections.Counter()
        self.refuses: Refusal | None = None
        self.refused = 0
        self.serial = 0
        self.faults: list[str] = []
        self.peak_bytes = 0
        self._used = self._reserved = 0
        self._blocks: dict[int, Block] = {}
        self._ended: collections.deque[tuple[int, Block]] = collections.deque()
        self._lock = threading.Lock()

    def block_of(self, inner: torch.Tensor, queue: Queue) -> Block:
        """The block that *inner*'s storage is on this card; a new one is made on *queue*. Raises ``torch.OutOfMemoryError``."""
        storage = inner.untyped_storage()
        place = storage._cdata
        with self._lock:
            if self._ended:
                self._drop_ended()
            block = self._blocks.get(place)
            if block is not None:
                return block
            block = self._new_block(-(-storage.nbytes() // GRAIN) * GRAIN, queue)
            self._blocks[place] = block
        weakref.finalize(storage, self._end, place, block).atexit = False
        return block

    def _new_block(self, size_bytes: int, queue: Queue) -> Block:
        self.serial += 1
        asked = self.refuses is not None and self.refuses(size_bytes, self.serial)
        if asked or self._used + size_bytes > self.capacity_bytes:
            self.refused += 1
            free = self.capacity_bytes - self._used
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size_bytes} bytes on pretend card {self.index}, which has {free} bytes free"
                + (" (on purpose)" if asked else "")
            )
        self._used += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._used)
        self._reserved = max(self._reserved, self._used)
        self.counters["allocations"] += 1
        return Block(size_bytes, self.serial, queue)

    def _end(self, place: int, block: Block) -> None:
        """A finalizer: takes no lock. The allocator gives the block to the next who asks on its own stream, without waiting."""
        home, uses = block.home, block.uses
        known = home.position()
        late = [q for q, tick in uses.readers.items() if q != home.number and known.get(q, 0) < tick and q not in uses.recorded]
        if uses.writer is not None and uses.writer[0] != home.number and uses.writer[0] not in uses.recorded:
            late += [uses.writer[0]] if known.get(uses.writer[0], 0) < uses.writer[1] else []
        if late:
            self.faults.append(f"{block.size_bytes} bytes of stream {home.number} were freed while streams {sorted(set(late))} use them")
        self._ended.append((place, block))

    def _drop_ended(self) -> None:
        while self._ended:
            place, block = self._ended.popleft()
            if block.alive:
                block.alive = False
                self._used -= block.size_bytes
                if self._blocks.get(place) is block:
                    del self._blocks[place]

    def used_bytes(self) -> int:
        """Bytes of living storages."""
        with self._lock:
            self._drop_ended()
            return self._used

    def reserved_bytes(self) -> int:
        """The most that was in use since the last :meth:`trim`."""
        with self._lock:
            return self._reserved

    def trim(self) -> None:
        """Give back what is reserved and not in use."""
        with self._lock:
            self._drop_ended()
            self._reserved = self._used
        self.counters["empty_cache"] += 1

    def forget_peak(self) -> None:
        """Measure the peak from here."""
        self.peak_bytes = self.used_bytes()
