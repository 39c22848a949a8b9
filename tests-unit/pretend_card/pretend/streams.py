"""Queues of work on cards, and who has waited for whom.

Every queue and the host have a clock that says how far of each queue they are known to come after (a vector clock). Work that touches
memory is checked against those who touched it before: reading what another queue writes, or writing what another one still reads, without
having waited for it, is a :class:`Race`, however the numbers came out. Beside that runs a plain model of time, in microseconds: kernels
and copies take as long as their bytes at a given rate, so that a trace shows what overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COPY_BYTES_PER_US = 24_000.0  # 24 GB/s, page-locked
PAGEABLE_BYTES_PER_US = 8_000.0
KERNEL_BYTES_PER_US = 600_000.0
LEAST_US = 4.0
LAUNCH_US = 2.0


class Race(RuntimeError):
    """Memory was used before, or given away while, other queued work was done with it."""


@dataclass(slots=True)
class Span:
    """One piece of work in a trace: when it ran on which queue."""

    queue: int
    what: str
    size_bytes: int
    start_us: float
    end_us: float


Clock = dict[int, int]


def merge(clock: Clock, other: Clock) -> None:
    """Let *clock* know all that *other* knows. The list is made at once, so that another thread may add to *other* meanwhile."""
    for queue, tick in list(other.items()):
        if clock.get(queue, 0) < tick:
            clock[queue] = tick


@dataclass(slots=True, eq=False)
class Queue:
    """A stream of one card."""

    number: int
    card: int
    clock: Clock = field(default_factory=dict)
    tick: int = 0
    free_at_us: float = 0.0

    def position(self) -> Clock:
        """What somebody who waits for all work queued now comes after."""
        return {**self.clock, self.number: self.tick}


@dataclass(slots=True, eq=False)
class Uses:
    """Who wrote and who read a piece of memory last: {queue: tick}. The host's own uses are done when they return."""

    writer: tuple[int, int] | None = None
    readers: Clock = field(default_factory=dict)
    recorded: set[int] = field(default_factory=set)

    def unseen(self, clock: Clock, writes: bool) -> int | None:
        """A queue whose use *clock* does not come after although it must; None if there is none."""
        if self.writer is not None and clock.get(self.writer[0], 0) < self.writer[1]:
            return self.writer[0]
        if writes:
            return next((queue for queue, tick in self.readers.items() if clock.get(queue, 0) < tick), None)
        return None

    def note(self, queue: Queue, writes: bool) -> None:
        """*queue* uses the memory with the piece of work it took in last."""
        if writes:
            self.writer, self.readers = (queue.number, queue.tick), {}
        else:
            self.readers[queue.number] = queue.tick


class Scheduler:
    """All queues of a machine and the host's own progress."""

    def __init__(self) -> None:
        self.host_clock: Clock = {}
        self.host_us = 0.0
        self.queues: list[Queue] = []
        self.trace: list[Span] | None = None

    def new_queue(self, card: int) -> Queue:
        queue = Queue(len(self.queues), card)
        self.queues.append(queue)
        return queue

    def launch(self, queue: Queue, what: str, size_bytes: int, rate: float) -> None:
        """Put a piece of work into *queue*."""
        merge(queue.clock, self.host_clock)
        queue.tick += 1
        queue.clock[queue.number] = queue.tick
        start = max(queue.free_at_us, self.host_us)
        queue.free_at_us = start + max(LEAST_US, size_bytes / rate)
        self.host_us += LAUNCH_US
        if self.trace is not None:
            self.trace.append(Span(queue.number, what, size_bytes, start, queue.free_at_us))

    def host_waits(self, clock: Clock, until_us: float) -> None:
        """The host has waited for all that *clock* says."""
        merge(self.host_clock, clock)
        self.host_us = max(self.host_us, until_us)

    def queue_waits(self, queue: Queue, clock: Clock, until_us: float) -> None:
        """What *queue* takes in from now on comes after *clock*."""
        merge(queue.clock, clock)
        queue.free_at_us = max(queue.free_at_us, until_us)

    def overlap_us(self, first: set[int], second: set[int]) -> float:
        """For how long work of the queues *first* ran while work of the queues *second* did."""
        spans = self.trace or []
        ones = [span for span in spans if span.queue in first]
        others = [span for span in spans if span.queue in second]
        return sum(
            max(0.0, min(one.end_us, other.end_us) - max(one.start_us, other.start_us))
            for one in ones
            for other in others
            if other.start_us < one.end_us
        )


def check(uses: Uses, clock: Clock, writes: bool, what: str) -> None:
    """Raise :class:`Race` unless who has *clock* may use the memory now."""
    other = uses.unseen(clock, writes)
    if other is not None:
        deed = "writes memory that stream" if writes else "reads memory that stream"
        raise Race(f"{what} {deed} {other} is not known to be done with: wait for an event of that stream, or synchronize, first")


def queue_of(stream: Any) -> Queue:
    """The queue behind a pretend ``torch.cuda.Stream``."""
    return stream.queue
