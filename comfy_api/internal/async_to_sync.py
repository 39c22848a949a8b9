"""Blocking twins of classes whose methods are coroutines."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from comfy_api.internal.singleton import ProxiedSingleton


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=32, thread_name_prefix="comfy-api-sync")


def run_blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run *coroutine* to its end on another thread with its own event loop; return what it returns or raise what it raises.

    It sees the caller's context variables, so it knows which node it runs for. Because the caller's own loop is not
    needed, nodes, coroutines and any other thread may call this; it blocks the calling thread.
    """
    return _pool().submit(contextvars.copy_context().run, asyncio.run, coroutine).result()


def _blocking_method(name: str, method: Any) -> Any:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run_blocking(getattr(self._async_instance, name)(*args, **kwargs))

    return call


class _SyncTwin:
    """Wraps one asynchronous object: makes its coroutine methods blocking and passes everything else through."""

    _async_class: type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._wrap(self._async_class(*args, **kwargs))

    @classmethod
    def wrapping(cls, instance: Any) -> Any:
        """The twin of an existing object."""
        twin = cls.__new__(cls)
        twin._wrap(instance)
        return twin

    def _wrap(self, instance: Any) -> None:
        self._async_instance = instance
        for name, member in getattr(instance, "__dict__", {}).items():
            if isinstance(member, ProxiedSingleton) and not name.startswith("_"):
                setattr(self, name, create_sync_class(type(member)).wrapping(member))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._async_instance, name)
        if isinstance(value, type):
            raise AttributeError(f"{type(self).__name__} has no {name}; classes are only on the asynchronous API")
        return value


@functools.cache
def create_sync_class(async_class: type) -> type[_SyncTwin]:
    """The blocking twin of *async_class*: the same names, with each public coroutine method replaced by a blocking one.

    Members of its instances that belong to the API get twins as well. The twin is not a singleton, but wraps the one instance.
    """
    methods = {}
    for name, member in inspect.getmembers(async_class):
        method = getattr(member, "async_method", member)
        if inspect.iscoroutinefunction(method) and not name.startswith("_"):
            methods[name] = _blocking_method(name, method)
    identity = {"__module__": async_class.__module__, "__doc__": async_class.__doc__, "_async_class": async_class}
    return cast("type[_SyncTwin]", type(f"{async_class.__name__}Sync", (_SyncTwin,), {**methods, **identity}))
