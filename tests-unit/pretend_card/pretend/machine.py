"""The pretend machine: its cards, its queues of work, its page-locked memory, and what each thread has chosen of them."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch

from pretend.cards import Card
from pretend.page_locks import PageLocks
from pretend.streams import COPY_BYTES_PER_US, KERNEL_BYTES_PER_US, PAGEABLE_BYTES_PER_US, Queue, Scheduler, Uses, check


class Machine:
    """*count* cards of *capacity_bytes* each. Any thread; which card and stream are current is each thread's own."""

    def __init__(self, count: int, capacity_bytes: int) -> None:
        self.scheduler = Scheduler()
        self.page_locks = PageLocks()
        self.cards = [Card(index, capacity_bytes, self.scheduler.new_queue(index)) for index in range(count)]
        self.faults: list[str] = []
        self.generators: dict[int, Any] = {}  # of cards, by their address in torch
        self._chosen = threading.local()
        self._host_uses: dict[int, Uses] = {}  # host storages that queued copies read or write

    # What is current

    def current_index(self) -> int:
        return getattr(self._chosen, "index", 0)

    def choose(self, index: int) -> None:
        self._chosen.index = index

    def queue(self, index: int) -> Queue:
        """The current stream of card *index* in this thread."""
        queues: dict[int, Queue] = getattr(self._chosen, "queues", {})
        return queues.get(index, self.cards[index].default)

    def choose_queue(self, queue: Queue) -> None:
        self._chosen.queues = {**getattr(self._chosen, "queues", {}), queue.card: queue}

    def card_for(self, device: Any) -> Card | None:
        """The card that *device* names; None for the host. Raises as CUDA does for a card that is not there."""
        found = None if device is None else torch.device(device)
        if found is None or found.type != "cuda":
            return None
        index = self.current_index() if found.index is None else found.index
        if index >= len(self.cards):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return self.cards[index]

    # Page-locked memory

    def is_locked(self, tensor: torch.Tensor) -> bool:
        """Whether the host tensor lies in page-locked memory."""
        if getattr(tensor.untyped_storage(), "_pretend_locked", False):
            return True
        return bool(self.page_locks.ranges) and self.page_locks.covers(tensor.data_ptr(), max(1, tensor.nbytes))

    # Uses of host memory by queued copies

    def host_uses(self, tensor: torch.Tensor, create: bool = False) -> Uses | None:
        place = tensor.untyped_storage()._cdata
        uses = self._host_uses.get(place)
        if uses is None and create:
            uses = self._host_uses[place] = Uses()
            weakref.finalize(tensor.untyped_storage(), self._host_uses.pop, place, None).atexit = False
        return uses

    def check_host(self, tensor: torch.Tensor, writes: bool, what: str) -> None:
        """The host uses *tensor*; raises :class:`~pretend.streams.Race` while a queued copy still does."""
        if self._host_uses:
            uses = self.host_uses(tensor)
            if uses is not None:
                check(uses, self.scheduler.host_clock, writes, what)

    # Work

    def kernel(self, card: Card, what: str, size_bytes: int) -> None:
        """Queue a kernel on *card*'s current stream."""
        card.counters["kernels"] += 1
        self.scheduler.launch(self.queue(card.index), what, size_bytes, KERNEL_BYTES_PER_US)

    def copy(self, card: Card, what: str, size_bytes: int, locked: bool) -> None:
        """Queue a copy between the host and *card* on its current stream."""
        self.scheduler.launch(self.queue(card.index), what, size_bytes, COPY_BYTES_PER_US if locked else PAGEABLE_BYTES_PER_US)

    def host_waits_for(self, card: Card, why: str) -> None:
        """The host waits for *card*'s current stream, as reading a value does."""
        card.counters["syncs"] += 1
        card.counters[f"sync: {why}"] += 1
        queue = self.queue(card.index)
        self.scheduler.host_waits(queue.position(), queue.free_at_us)

    def synchronize(self, index: int | None = None) -> None:
        """The host waits for everything on a card (None: the current one)."""
        card = self.cards[self.current_index() if index is None else index]
        card.counters["syncs"] += 1
        card.counters["sync: synchronize"] += 1
        for queue in self.scheduler.queues:
            if queue.card == card.index:
                self.scheduler.host_waits(queue.position(), queue.free_at_us)

    def all_faults(self) -> list[str]:
        """Everything that was noticed and could not be raised."""
        return [*self.faults, *(fault for card in self.cards for fault in card.faults), *self.page_locks.faults()]
