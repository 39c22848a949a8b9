"""How hard a thread reads: at once, or in the background, giving way to reads that somebody waits for."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from comfy.weight_files.reading_together import ReadingTogether
from comfy.weight_files.thread_priority import come_forward, stand_back

POLL_S = 0.02
Note = Callable[[int], None]
AT_ONCE = 0  # the turn of a read that somebody waits for


@dataclass(slots=True, eq=False)
class Lane:
    """One read in progress; of two, the one with the lower *turn* is needed first."""

    turn: int


class ReadLanes:
    """The reads in progress that others give way to, and which of them may read now. Its lock is a leaf; any thread."""

    def __init__(self, together: ReadingTogether | None = None) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._together = together or ReadingTogether()
        self._lanes: list[Lane] = []

    @contextmanager
    def reading(self, turn: int = AT_ONCE) -> Iterator[Lane]:
        """A read that others give way to."""
        lane = Lane(turn)
        with self._changed:
            self._lanes.append(lane)
            self._together.readers_changed()
        try:
            yield lane
        finally:
            with self._changed:
                self._lanes.remove(lane)
                self._together.readers_changed()
                self._changed.notify_all()

    def is_free(self, wait_s: float) -> bool:
        """Whether no such read is in progress, or none any more within *wait_s*."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lanes, wait_s)

    def may_read(self, lane: Lane, wait_s: float) -> bool:
        """Whether it is the turn of *lane*, or the disk gains from reading it beside the first, now or within *wait_s*."""
        with self._changed:
            return self._changed.wait_for(lambda: self._together.is_on or self._is_first(lane), wait_s)

    def hurry(self, lane: Lane) -> None:
        """Somebody waits for what *lane* reads."""
        with self._changed:
            if lane.turn != AT_ONCE:
                lane.turn = AT_ONCE
                self._together.readers_changed()

    def note(self, lane: Lane, size_bytes: int) -> None:
        """A chunk of *lane* has been read."""
        with self._changed:
            was_on = self._together.is_on
            if was_on or self._is_first(lane):
                # Several may be first, all of them at once in any case: what can be tried is to let others join.
                self._together.note(size_bytes, sum(not self._is_first(other) for other in self._lanes))
            if self._together.is_on is not was_on:
                self._changed.notify_all()

    def _is_first(self, lane: Lane) -> bool:
        return lane.turn <= min((other.turn for other in self._lanes), default=AT_ONCE)


@functools.cache
def read_lanes() -> ReadLanes:
    """The process's own."""
    return ReadLanes()


_turns = itertools.count(AT_ONCE + 1)


class BackgroundPace:
    """Of one load in the background. *check* and *is_urgent* may be called by several threads that read for it.

    *raise_if_stopped* ends the load by raising. *is_urgent* tells that somebody waits for it: it gives way no longer. With *beside* it
    gives way only to reads that are needed sooner, in the order in which these objects are made, and not even to those where the disk
    gains from reading side by side; others give way to it. Without it :attr:`stands_back`: its threads have the lowest priority, and as
    few processes may raise that again, they are to begin no further piece once the load is urgent.
    """

    def __init__(
        self, raise_if_stopped: Callable[[], None], is_urgent: Callable[[], bool], beside: bool = False, lanes: ReadLanes | None = None
    ) -> None:
        self.paused_s, self._counted_s = 0.0, 0.0
        self.is_urgent, self.stands_back = is_urgent, not beside
        self._lock = threading.Lock()
        self._raise_if_stopped, self._beside, self._lanes = raise_if_stopped, beside, lanes or read_lanes()
        self._turn, self._lane = next(_turns), Lane(AT_ONCE)

    def check(self) -> None:
        """Between two pieces of a read: wait while others read first. Raises when the load is stopped."""
        self._raise_if_stopped()
        if self._may_read(0):
            return
        began_s = time.perf_counter()
        while not self._hurries() and not self._may_read(POLL_S):
            self._raise_if_stopped()
        with self._lock:  # threads that pause at the same time count once
            now_s = time.perf_counter()
            self.paused_s += max(0.0, now_s - max(began_s, self._counted_s))
            self._counted_s = now_s

    def _may_read(self, wait_s: float) -> bool:
        return self._lanes.may_read(self._lane, wait_s) if self._beside else self._lanes.is_free(wait_s)

    def _hurries(self) -> bool:
        if not self.is_urgent():
            return False
        if self._beside:
            self._lanes.hurry(self._lane)
        return True

    @contextmanager
    def lane(self) -> Iterator[Note]:
        """Around a whole read, one at a time; yields what is to be told the size in bytes of each piece that has been read."""
        if not self._beside:
            yield lambda size_bytes: None
            return
        with self._lanes.reading(self._turn) as self._lane:
            yield functools.partial(self._lanes.note, self._lane)

    def wait_for(self, readers: Collection[threading.Thread]) -> None:
        """Return when *readers* have ended or the load is urgent; then they get this thread's priority as far as the system lets them."""
        while any(reader.is_alive() for reader in readers):
            if self._hurries():
                for reader in readers:
                    if reader.is_alive() and reader.native_id is not None:
                        come_forward(reader.native_id)
                return
            next((reader for reader in readers if reader.is_alive()), threading.current_thread()).join(POLL_S)

    def prepare_thread(self) -> None:
        """Called first by each thread that is started to read for the load."""
        if self.stands_back:
            stand_back()


current_pace: ContextVar[BackgroundPace | None] = ContextVar("reading_pace", default=None)


def lane() -> AbstractContextManager[Note]:
    """Around a whole read of this thread: others give way to it, unless it is in the background itself.

    Yields what is to be told the size in bytes of each piece that has been read.
    """
    pace = current_pace.get()
    return _lane_at_once() if pace is None else pace.lane()


@contextmanager
def _lane_at_once() -> Iterator[Note]:
    lanes = read_lanes()
    with lanes.reading() as one:
        yield functools.partial(lanes.note, one)
