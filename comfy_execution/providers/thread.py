"""One provider's own thread with an event loop that lives as long as the provider is in use.

A provider that blocks its loop stops only itself, and a connection pool opened in one prompt works in the next.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any

log = logging.getLogger(__name__)


async def wait_briefly(futures: "Iterable[Future[Any]]", timeout_s: float) -> None:
    """Wait for *futures*, which other threads fulfil, up to *timeout_s*; those that are late are cancelled, so that they do not report to
    the caller's loop, which may have ended by then."""
    waiters = {asyncio.wrap_future(future) for future in futures}
    try:
        await asyncio.wait(waiters, timeout=timeout_s)
    finally:
        for waiter in waiters:
            waiter.cancel()


class ProviderThread:
    """Started by the first use. ``submit`` may be called from any thread and never blocks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run *coroutine* on the loop. Cancelling the returned future cancels it there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Have the loop call *callback* after *delay_s*."""
        loop = self._running_loop()
        if delay_s > 0:
            loop.call_soon_threadsafe(loop.call_later, delay_s, callback)
        else:
            loop.call_soon_threadsafe(callback)

    def is_started(self) -> bool:
        """Whether the thread exists."""
        return self._thread is not None

    def close(self, timeout_s: float) -> None:
        """Stop the loop, cancel what is left on it and end the thread; one that is blocked is left behind."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            self._closing.set()
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        if thread.is_alive():
            log.warning("%s does not react and is left behind", self._name)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop, self._closing = asyncio.new_event_loop(), threading.Event()
                self._thread = threading.Thread(target=_serve, args=(self._loop, self._closing), name=self._name, daemon=True)
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop, closing: threading.Event) -> None:
    """Run *loop* until *closing*. Whatever ends ``run_forever`` before, such as ``SystemExit`` in a callback, does not end the loop: what
    else is due on it waits there and goes on."""
    asyncio.set_event_loop(loop)
    try:
        while not closing.is_set():
            try:
                loop.run_forever()
            except BaseException:
                log.warning("%s: what runs on its loop tried to end it; it goes on", threading.current_thread().name, exc_info=True)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
