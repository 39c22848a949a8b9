"""A coroutine that changes threads: on the event loop while it awaits, on the node worker while it calls sync functions.

Going to a worker thread and back for every node costs 70 to 90 µs, more than everything else about a pass-through node. So a
coroutine started by ``travel`` moves as a whole: ``await to_worker(w)`` makes what follows run on the worker, ``await to_loop()``
makes it run on the loop again, and a stretch of sync nodes costs one trip. Only one thread runs it at any moment.
"""

import asyncio
import contextlib
import contextvars
import functools
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NamedTuple

from comfy_execution.executor.threads import NodeWorker, WorkerLost


class _ToWorker:
    def __init__(self, worker: NodeWorker) -> None:
        self.worker = worker


class _ToLoop:
    """Yielded by a coroutine on the worker: carry on where the loop is."""


_TO_LOOP = _ToLoop()


@types.coroutine
def to_worker(worker: NodeWorker) -> Generator[Any, Any, None]:
    """Continue on *worker*'s thread; nothing happens if this is it. Only inside ``travel``."""
    if not worker.is_current():
        yield _ToWorker(worker)


@types.coroutine
def to_loop(worker: NodeWorker) -> Generator[Any, Any, None]:
    """Continue on the event loop; nothing happens unless this is *worker*'s thread."""
    if worker.is_current():
        yield _TO_LOOP


async def call_on_worker(worker: NodeWorker, function: Callable[[], Any]) -> Any:
    """The result of ``function()``, called on *worker*: at once if this is its thread, else by a trip there and back."""
    if worker.is_current():
        return function()
    return (await _start(worker, function)).get()


class _Outcome(NamedTuple):
    """What a call gave or raised. A future's own error would not do: asyncio throws it into the coroutine that waits, where
    ``GeneratorExit`` would close all that awaits, and ``KeyboardInterrupt`` or ``SystemExit`` might end the loop."""

    result: Any
    error: BaseException | None = None

    def get(self) -> Any:
        """The result; raises the error."""
        if self.error is not None:
            raise self.error
        return self.result


def _start(worker: NodeWorker, function: Callable[[], Any]) -> "asyncio.Future[_Outcome]":
    """Have *worker* call ``function()``; a future of the running loop for its outcome."""
    loop = asyncio.get_running_loop()
    awaited: asyncio.Future[_Outcome] = loop.create_future()

    def settle(outcome: _Outcome) -> None:
        if not awaited.done():
            awaited.set_result(outcome)

    def deliver(outcome: _Outcome) -> None:
        # The loop is closed when shutdown did not wait for a node that would not end.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    def job() -> None:
        # BaseException: an interrupt must reach the awaiting coroutine, and the worker must survive.
        try:
            outcome = _Outcome(function())
        except StopIteration as error:
            # The coroutine protocol would turn it into this error anyway.
            wrapped = RuntimeError(f"StopIteration raised by a node function: {error}")
            wrapped.__cause__ = error
            outcome = _Outcome(None, wrapped)
        except BaseException as error:
            outcome = _Outcome(None, error)
        deliver(outcome)

    worker.submit(job, lambda error: deliver(_Outcome(None, error)))
    return awaited


def _step(coroutine: Coroutine[Any, Any, Any], error: BaseException | None, value: Any) -> tuple[bool, Any]:
    """Advance the coroutine: ``(True, its result)`` or ``(False, what it yielded)``."""
    try:
        return False, coroutine.send(value) if error is None else coroutine.throw(error)
    except StopIteration as stop:
        return True, stop.value


@types.coroutine
def _outlast(trip: "asyncio.Future[Any]") -> Generator[Any, Any, asyncio.CancelledError | None]:
    """Wait until *trip* is done, even when cancelled meanwhile: what the worker does cannot be taken back. The cancellation, if any."""
    cancelled = None
    while not trip.done():
        try:
            yield from asyncio.shield(trip).__await__()
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


@types.coroutine
def travel(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await *coroutine* from the event loop, letting it move between loop and worker; returns its result.

    A cancellation reaches it when it is back on the loop.
    """
    error: BaseException | None = None
    value: Any = None
    while True:
        finished, outcome = _step(coroutine, error, value)
        error = value = None
        while not finished and isinstance(outcome, _ToWorker):
            context = contextvars.copy_context()
            trip = _start(outcome.worker, functools.partial(context.run, _step, coroutine, None, None))
            error = yield from _outlast(trip)
            ended = trip.result()
            if isinstance(ended.error, WorkerLost):
                # The coroutine stands where it wanted to go on; there it learns that it cannot.
                error = ended.error
            else:
                finished, outcome = ended.get()
            if error is not None:
                break
        if finished and error is not None:
            raise error
        if finished:
            return outcome
        if outcome is _TO_LOOP or error is not None:
            continue
        try:
            value = yield outcome
        except BaseException as thrown:
            error = thrown


@types.coroutine
def step_within(scope: Callable[[], contextlib.AbstractContextManager], coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Await *coroutine*, running every step of it inside a fresh ``scope()``.

    For scopes that belong to the thread (inference mode): entered around a whole coroutine they would hold for whatever else
    runs on the loop while it waits.
    """
    error: BaseException | None = None
    value: Any = None
    while True:
        with scope():
            finished, outcome = _step(coroutine, error, value)
        if finished:
            return outcome
        error = value = None
        try:
            value = yield outcome
        except BaseException as thrown:
            error = thrown
