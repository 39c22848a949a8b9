"""``torch.cuda``'s streams and events over the machine's queues."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from pretend.machine import Machine
from pretend.streams import Queue


class PretendEvent:
    """``torch.cuda.Event``; a class made from it for each machine carries that."""

    machine: ClassVar[Machine]

    def __init__(self, *_: Any, **__: Any) -> None:
        self._clock: dict[int, int] = {}
        self._at_us = 0.0

    def _queue(self, stream: Any) -> Queue:
        queue: Queue = self.machine.queue(self.machine.current_index()) if stream is None else stream.queue
        return queue

    def record(self, stream: Any = None) -> None:
        queue = self._queue(stream)
        self._clock, self._at_us = queue.position(), queue.free_at_us

    def wait(self, stream: Any = None) -> None:
        self.machine.scheduler.queue_waits(self._queue(stream), self._clock, self._at_us)

    def synchronize(self) -> None:
        scheduler, counters = self.machine.scheduler, self.machine.cards[self.machine.current_index()].counters
        if any(scheduler.host_clock.get(queue, 0) < tick for queue, tick in self._clock.items()):
            counters["syncs"] += self._at_us > scheduler.host_us
            counters["sync: event"] += 1
        scheduler.host_waits(self._clock, self._at_us)

    def query(self) -> bool:
        done = self._at_us <= self.machine.scheduler.host_us
        if done:
            self.machine.scheduler.host_waits(self._clock, self._at_us)
        return done

    def elapsed_time(self, later: Any) -> float:
        return float(later._at_us - self._at_us) / 1000


class PretendStream:
    """``torch.cuda.Stream``; a class made from it for each machine carries that, its events and how devices are told."""

    machine: ClassVar[Machine]
    event_class: ClassVar[type[PretendEvent]]
    index: ClassVar[Callable[[Any], int]]

    def __init__(self, device: Any = None, priority: int = 0, queue: Queue | None = None, **_: Any) -> None:
        self.queue = queue or self.machine.scheduler.new_queue(self.index(device))
        self.device = self.machine.cards[self.queue.card].device
        self.cuda_stream = self.stream_id = self.queue.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretendStream) and other.queue is self.queue

    def __hash__(self) -> int:
        return hash(self.queue.number)

    def wait_stream(self, other: Any) -> None:
        self.machine.scheduler.queue_waits(self.queue, other.queue.position(), other.queue.free_at_us)

    def wait_event(self, event: PretendEvent) -> None:
        event.wait(self)

    def record_event(self, event: PretendEvent | None = None) -> PretendEvent:
        event = event or self.event_class()
        event.record(self)
        return event

    def synchronize(self) -> None:
        counters = self.machine.cards[self.queue.card].counters
        counters["syncs"] += 1
        counters["sync: synchronize"] += 1
        self.machine.scheduler.host_waits(self.queue.position(), self.queue.free_at_us)

    def query(self) -> bool:
        return self.queue.free_at_us <= self.machine.scheduler.host_us


def queue_names(machine: Machine, index: Callable[[Any], int]) -> dict[str, Any]:
    """What ``torch.cuda`` has of streams and events, for *machine*; *index* tells a card's number from a device."""
    event_class = type("Event", (PretendEvent,), {"machine": machine})
    attributes = {"machine": machine, "event_class": event_class, "index": staticmethod(index)}
    stream_class = type("Stream", (PretendStream,), attributes)

    @contextlib.contextmanager
    def stream(chosen: Any) -> Iterator[None]:
        if chosen is None:
            yield
            return
        before, card = machine.queue(chosen.queue.card), machine.current_index()
        machine.choose_queue(chosen.queue)
        machine.choose(chosen.queue.card)
        try:
            yield
        finally:
            machine.choose_queue(before)
            machine.choose(card)

    return {
        "Stream": stream_class,
        "Event": event_class,
        "stream": stream,
        "set_stream": lambda chosen: machine.choose_queue(chosen.queue),
        "current_stream": lambda device=None: stream_class(queue=machine.queue(index(device))),
        "default_stream": lambda device=None: stream_class(queue=machine.cards[index(device)].default),
        "synchronize": lambda device=None: machine.synchronize(index(device)),
    }
