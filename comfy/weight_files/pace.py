"""How hard a thread reads: at once, or in the background, giving way to reads that somebody waits for."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from comfy.weight_files.thread_priority import stand_back

POLL_S = 0.02


class ReadLanes:
    """How many reads are in progress that others give way to. Its lock is a leaf; any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._reads = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A read that others give way to."""
        with self._changed:
            self._reads += 1
        try:
            yield
        finally:
            with self._changed:
                self._reads -= 1
                self._changed.notify_all()

    def is_free(self, wait_s: float) -> bool:
        """Whether no such read is in progress, or none any more within *wait_s*."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._reads, wait_s)


@functools.cache
def read_lanes() -> ReadLanes:
    """The process's own."""
    return ReadLanes()


class BackgroundPace:
    """Of one load in the background. *check* and *is_urgent* may be called by several threads that read for it.

    *raise_if_stopped* ends the load by raising. *is_urgent* tells that somebody waits for it: it gives way no longer. With *beside* it
    never does, and others give way to it.
    """

    def __init__(
        self, raise_if_stopped: Callable[[], None], is_urgent: Callable[[], bool], beside: bool = False, lanes: ReadLanes | None = None
    ) -> None:
        self.paused_s, self._counted_s = 0.0, 0.0
        self.is_urgent = is_urgent
        self._lock = threading.Lock()
        self._raise_if_stopped, self._beside, self._lanes = raise_if_stopped, beside, lanes or read_lanes()

    def check(self) -> None:
        """Between two pieces of a read: wait while others read first. Raises when the load is stopped."""
        self._raise_if_stopped()
        if self._beside or self._lanes.is_free(0):
            return
        began_s = time.perf_counter()
        while not self.is_urgent() and not self._lanes.is_free(POLL_S):
            self._raise_if_stopped()
        with self._lock:  # threads that pause at the same time count once
            now_s = time.perf_counter()
            self.paused_s += max(0.0, now_s - max(began_s, self._counted_s))
            self._counted_s = now_s

    def lane(self) -> AbstractContextManager[None]:
        """Around a whole read."""
        return self._lanes.reading() if self._beside else nullcontext()

    def wait_for(self, readers: Iterable[threading.Thread]) -> None:
        """Return when *readers* have ended or the load is urgent."""
        for reader in readers:
            while reader.is_alive() and not self.is_urgent():
                reader.join(POLL_S)

    def prepare_thread(self) -> None:
        """Called first by each thread that is started to read for the load: it stands back, unless others give way to it."""
        if not self._beside:
            stand_back()


current_pace: ContextVar[BackgroundPace | None] = ContextVar("reading_pace", default=None)


def lane() -> AbstractContextManager[None]:
    """Around a whole read of this thread: others give way to it, unless it is in the background itself."""
    pace = current_pace.get()
    return read_lanes().reading() if pace is None else pace.lane()
