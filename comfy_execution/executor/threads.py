"""The two long-lived threads of execution: the event loop that schedules, and the one thread that runs sync node functions."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0
STUCK_TIMEOUT_S = 0.5  # for threads of a node that did not stop in that time


class NodeWorker:
    """One thread, ``node-worker``, that runs what it is given, one after the other, in order.

    Started by the first job and closed by its owner. Jobs never overlap, so code that is bound to a thread (CUDA contexts,
    autograd modes) always meets the same one.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ident: int | None = None

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.get_ident() == self._ident

    def submit(self, job: Callable[[], None]) -> None:
        """Run *job* on the thread, after what was submitted before. *job* must not raise: it delivers its own outcome."""
        if self._thread is None:
            self._start()
        self._jobs.put(job)

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
                self._thread = threading.Thread(target=self._run, name="node-worker", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        self._ident = threading.get_ident()
        while (job := self._jobs.get()) is not None:
            job()


class ExecutionLoop:
    """One thread, ``execution-loop``, with an event loop that lives until it is closed.

    What is opened on the loop during one prompt (a connection pool, say) works in the next. Started by the first use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; starts the thread if need be."""
        with self._lock:
            if self._loop is None:
                started: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(target=self._run, args=(started,), name="execution-loop", daemon=True)
                self._thread.start()
                self._loop = started.result()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* on the loop and block until it ends; returns its result or raises what it raised.

        Must not be called from the loop's own thread (``RuntimeError``).
        """
        if self._thread is not None and threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("the execution loop can't wait for itself: await execute_async() there instead of calling execute()")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Cancel what still runs on the loop, stop it and end the thread."""
        with self._lock:
            thread, loop, self._thread, self._loop = self._thread, self._loop, None, None
        if thread is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout_s)

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(started.set_result, loop)
        try:
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

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """End both threads, waiting up to *timeout_s* for each. They start again if they are used again."""
        self.loop.close(timeout_s)
        self.worker.close(timeout_s)
