"""Lets a coroutine function call itself to any depth without deepening Python's call stack."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# The task whose driver takes the calls made in this context.
_driven_task: ContextVar[asyncio.Task[Any] | None] = ContextVar("driven_task", default=None)


class _Call:
    """An awaitable that asks the driver to run a coroutine and to come back with its result."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


class _Driver:
    """Runs a coroutine and, on a stack of its own, every call that it makes through ``_Call``."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._stack = [coroutine]

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                wanted = self._stack[-1].send(value) if error is None else self._stack[-1].throw(error)
            except StopIteration as stop:
                del self._stack[-1]
                value, error = stop.value, None
                if not self._stack:
                    return value
                continue
            except BaseException as raised:
                del self._stack[-1]
                value, error = None, raised
                if not self._stack:
                    raise
                continue
            value, error = None, None
            if isinstance(wanted, _Call):
                self._stack.append(wanted.coroutine)
                continue
            try:
                value = yield wanted
            except BaseException as thrown:
                error = thrown


def without_recursion(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate a recursive coroutine function: its results, errors and order stay the same, its depth is bounded by memory only.

    Calls that *function* makes to itself in the task it runs in are run by the outermost call; a task started inside has its own.
    """

    @functools.wraps(function)
    async def bounded(*args: P.args, **kwargs: P.kwargs) -> T:
        coroutine: Any = function(*args, **kwargs)
        task = asyncio.current_task()
        if _driven_task.get() is task:
            return await _Call(coroutine)
        token = _driven_task.set(task)
        try:
            return await _Driver(coroutine)
        finally:
            _driven_task.reset(token)

    return bounded
