"""What waits to be stored with one provider: bounded in bytes, processed on the provider's thread, independent of prompts."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, NamedTuple

from comfy_execution.cache_provider import CacheContext, CacheValue
from comfy_execution.providers.thread import ProviderThread, wait_briefly

log = logging.getLogger(__name__)

# What an entry without tensors counts.
SMALLEST_BYTES = 4096
WAKE_DELAY_S = 0.02
# For so long jobs that never wait may follow each other before the loop turns to anything else.
TURN_S = 0.001


class StoreJob(NamedTuple):
    """A result to be stored. The value belongs to the queue: it is not changed any more."""

    context: CacheContext
    value: CacheValue
    size_bytes: int


class StoreQueue:
    """Runs ``run(job)`` for each job, up to *concurrency* at a time, on *thread*'s loop. Any thread may call; nothing blocks.

    Each task runs one job after the other and ends with the queue, or with a job that was late or cancelled it. A job gets *timeout_s*;
    ``ended(job, outcome)`` is told the outcome: the result, the exception that it raised, ``TimeoutError`` when it was late (then it
    is cancelled, and whether it obeys is not waited for), ``CancelledError`` when it cancelled itself. A job counts until it has ended,
    so ``bytes`` bounds what is held for the provider. A job larger than the bound is taken when nothing else is queued, so that none is
    refused for ever.
    """

    def __init__(
        self,
        run: Callable[[StoreJob], Coroutine[Any, Any, Any]],
        ended: Callable[[StoreJob, Any], None],
        thread: ProviderThread,
        max_bytes: int,
        concurrency: int,
        timeout_s: float,
    ) -> None:
        self._run = run
        self._ended = ended
        self._thread = thread
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._waiting: deque[StoreJob] = deque()
        self._running: dict[asyncio.Task[Any], tuple[StoreJob, float]] = {}  # with the loop's time at which each is late, oldest first
        self._is_waking = self._is_stopped = self._is_watching = False
        self._bytes = 0
        self._waiters: list[tuple[int, Future[None]]] = []

    @property
    def count(self) -> int:
        """Jobs that wait or run."""
        with self._lock:
            return len(self._waiting) + len(self._running)

    @property
    def bytes(self) -> int:
        """What they hold."""
        return self._bytes

    def put(self, job: StoreJob) -> bool:
        """Queue *job*; False when there is no room."""
        size_bytes = _counted(job.size_bytes)
        with self._lock:
            if self._bytes and self._bytes + size_bytes > self._max_bytes:
                return False
            self._bytes += size_bytes
            self._waiting.append(job)
            starts, self._is_waking = not self._is_waking, True
        if starts:
            self._thread.call_later(WAKE_DELAY_S, self._wake)
        return True

    def has_room(self, size_bytes: int) -> bool:
        """Whether *size_bytes* fit now."""
        with self._lock:
            return self._has_room_locked(size_bytes)

    async def wait_for_room(self, size_bytes: int, timeout_s: float) -> bool:
        """Wait until *size_bytes* fit; whether they do. On the caller's loop."""
        with self._lock:
            if self._has_room_locked(size_bytes):
                return True
            freed: Future[None] = Future()
            self._waiters.append((size_bytes, freed))
        await wait_briefly([freed], timeout_s)
        with self._lock:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] is not freed]
            return self._has_room_locked(size_bytes)

    def stop(self) -> None:
        """Start no more jobs; the outcomes of those that run are not reported."""
        self._is_stopped = True

    def drained(self) -> "Future[None]":
        """Done when no job waits or runs."""
        empty: Future[None] = Future()
        with self._lock:
            is_waiting = bool(self._waiting)
            if self._bytes:
                self._waiters.append((self._max_bytes, empty))
            else:
                empty.set_result(None)
        if is_waiting:
            self._thread.call_later(0.0, self._wake)
        return empty

    def _has_room_locked(self, size_bytes: int) -> bool:
        return not self._bytes or self._bytes + _counted(size_bytes) <= self._max_bytes

    def _wake(self) -> None:
        """Start as many jobs as may run. What is queued within a moment is taken together: waking a thread costs more than a small job."""
        with self._lock:
            self._is_waking = False
        self._start_jobs()

    def _start_jobs(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._running) < self._concurrency and not self._is_stopped:
            with self._lock:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                task = loop.create_task(self._work(job))
                self._running[task] = job, loop.time() + self._timeout_s
            if not self._is_watching:
                self._is_watching = True
                loop.call_later(self._timeout_s, self._watch)

    async def _work(self, first: StoreJob) -> None:
        """Run *first* and then what waits, until this task is cancelled."""
        me, now, run = asyncio.current_task(), asyncio.get_running_loop().time, self._run
        assert me is not None
        turned_s, job = now(), first
        while True:
            try:
                outcome = await run(job)
            except (Exception, asyncio.CancelledError) as error:
                outcome = error
            following = self._leave(me, outcome, not me.cancelling())
            if following is None:
                return
            job = following
            if now() - turned_s > TURN_S:
                await asyncio.sleep(0)
                turned_s = now()

    def _watch(self) -> None:
        """Give up the jobs that are late. One timer serves all: most end long before theirs would."""
        loop = asyncio.get_running_loop()
        with self._lock:
            late = [task for task, (_, late_at) in self._running.items() if late_at <= loop.time()]
        for task in late:
            self._leave(task, TimeoutError(f"not done within {self._timeout_s:.1f} s"), False)
            task.cancel()
        with self._lock:
            next_s = min((late_at for _, late_at in self._running.values()), default=None)
            self._is_watching = next_s is not None
        if next_s is not None:
            loop.call_at(next_s, self._watch)

    def _leave(self, task: "asyncio.Task[Any]", outcome: Any, goes_on: bool) -> StoreJob | None:
        """Account for the outcome of *task*'s job, unless that was given up before; what it is to run next if it *goes_on*."""
        running = self._running.get(task)
        if running is None:
            return None
        job, _ = running
        if not self._is_stopped:
            try:
                self._ended(job, outcome)
            except Exception:
                log.exception("the outcome of a store cannot be reported")
        following = self._finish(task, job, goes_on)
        if not goes_on:
            self._start_jobs()
        return following

    def _finish(self, task: "asyncio.Task[Any]", job: StoreJob, goes_on: bool) -> StoreJob | None:
        following = None
        ready: list[tuple[int, Future[None]]] = []
        with self._lock:
            del self._running[task]
            self._bytes -= _counted(job.size_bytes)
            if goes_on and self._waiting and not self._is_stopped:
                following = self._waiting.popleft()
                self._running[task] = following, task.get_loop().time() + self._timeout_s
            if self._waiters:
                ready = [waiter for waiter in self._waiters if self._has_room_locked(waiter[0])]
                if ready:
                    self._waiters = [waiter for waiter in self._waiters if waiter not in ready]
        for _, future in ready:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
        return following


def _counted(size_bytes: int) -> int:
    return size_bytes if size_bytes > SMALLEST_BYTES else SMALLEST_BYTES
