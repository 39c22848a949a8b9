"""The two long-lived threads of execution: the event loop that schedules, and the one thread that runs sync node functions.

Nothing that runs on them may end them. Should one be gone all the same, whoever waits for it notices within ``WATCH_S``, what it was
doing ends as an error, and the next use starts a new one.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from comfy_execution.executor.isolation import Isolation

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0
STUCK_TIMEOUT_S = 0.5  # for threads of a node that did not stop in that time
WATCH_S = 0.5


class WorkerLost(RuntimeError):
    """The thread that was to do something ended before it was done."""


@dataclass(eq=False, slots=True)
class _Job:
    run: Callable[[], None]
    lost: Callable[[WorkerLost], None]


class NodeWorker:
    """One thread, ``node-worker``, that runs what it is given, one after the other, in order.

    Started by the first job and closed by its owner. Jobs never overlap, so code that is bound to a thread (CUDA contexts,
    autograd modes) always meets the same one.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._owed: dict[_Job, None] = {}
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ident: int | None = None

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.get_ident() == self._ident

    def submit(self, job: Callable[[], None], lost: Callable[[WorkerLost], None] = lambda error: None) -> None:
        """Run *job* on the thread, after what was submitted before. *job* delivers its own outcome; what it raises is only logged.

        *lost* is called instead of it, or after a part of it, when the thread is found dead; on the thread that finds it so.
        """
        if self._thread is None or not self._thread.is_alive():
            self.check()
            self._start()
        made = _Job(job, lost)
        with self._lock:
            self._owed[made] = None
        self._jobs.put(made)

    def check(self) -> None:
        """Notice that the thread is gone: tell those whose jobs are lost. The next job starts a new thread. Any thread."""
        with self._lock:
            if self._thread is None or self._thread.is_alive():
                return
            lost, self._owed, self._thread, self._ident = list(self._owed), {}, None, None
            self._jobs = queue.SimpleQueue()
        log.error("The thread node-worker is gone; it is started again, and what it was doing has failed")
        for job in lost:
            job.lost(WorkerLost("the thread that runs nodes was ended from outside; it has been started again"))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Let the thread finish what is queued and end. A node that does not return within *timeout_s* is left behind."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join(timeout_s)
            if thread.is_alive():
                log.warning("A node is still running %.0f s after shutdown was asked for; leaving it behind", timeout_s)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(self._jobs,), name="node-worker", daemon=True)
                self._thread.start()

    def _run(self, jobs: "queue.SimpleQueue[_Job | None]") -> None:
        self._ident = threading.get_ident()
        while (job := jobs.get()) is not None:
            with Isolation("A job of the thread node-worker", log):
                job.run()
            self._owed.pop(job, None)
            del job  # while the next one is waited for, nothing of this one may stay alive


class ExecutionLoop:
    """One thread, ``execution-loop``, with an event loop that lives until it is closed.

    What is opened on the loop during one prompt (a connection pool, say) works in the next. Started by the first use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = threading.Event()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; starts the thread if need be, also in place of one that is gone."""
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                if self._loop is not None:
                    log.error("The thread execution-loop is gone; it is started again, and what it was doing has failed")
                started: Future[asyncio.AbstractEventLoop] = Future()
                self._closing = threading.Event()
                self._thread = threading.Thread(target=_serve, args=(started, self._closing), name="execution-loop", daemon=True)
                self._thread.start()
                self._loop = started.result()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, Any], watch: Callable[[], None] = lambda: None) -> Any:
        """Run *coroutine* on the loop and block until it ends; returns its result or raises what it raised.

        *watch* is called every ``WATCH_S`` meanwhile. Raises ``WorkerLost`` when the loop's thread is gone. Must not be called from
        the loop's own thread (``RuntimeError``).
        """
        if self._thread is not None and threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("the execution loop cannot wait for itself: await execute_async() there instead of calling execute()")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        thread = self._thread
        try:
            while not concurrent.futures.wait((future,), WATCH_S).done:
                watch()
                if thread is None or not thread.is_alive():
                    raise WorkerLost("the thread of the execution loop was ended from outside; it is started again")
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Cancel what still runs on the loop, stop it and end the thread."""
        with self._lock:
            thread, loop, self._thread, self._loop = self._thread, self._loop, None, None
            self._closing.set()
        if thread is not None and loop is not None:
            # A loop whose thread is gone may be closed already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout_s)


def _serve(started: "Future[asyncio.AbstractEventLoop]", closing: threading.Event) -> None:
    """Run a loop until *closing*. Whatever ends ``run_forever`` before, such as ``SystemExit`` in a callback, does not end the loop:
    what else is due on it waits there and goes on."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set_result, loop)
    try:
        while not closing.is_set():
            with Isolation("The execution loop was left by what runs on it, which", log):
                loop.run_forever()
        _finish_tasks(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _finish_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S))


class ExecutionThreads:
    """The loop and the worker of one executor; whoever made it closes it."""

    def __init__(self) -> None:
        self.loop = ExecutionLoop()
        self.worker = NodeWorker()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* on the loop and block until it ends, noticing meanwhile when one of the threads is gone.

        Returns its result or raises what it raised; ``WorkerLost`` when the loop is gone.
        """
        return self.loop.run(coroutine, self.worker.check)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """End both threads, waiting up to *timeout_s* for each. They start again if they are used again."""
        self.loop.close(timeout_s)
        self.worker.close(timeout_s)
