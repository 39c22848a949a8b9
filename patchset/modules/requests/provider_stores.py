"""Results on their way to cache providers, which a prompt's end does not stop.

``on_store`` runs on the provider's own loop and gets a copy of the tensors, because later nodes may change them in place meanwhile.
"""

import asyncio
import concurrent.futures
import functools
import logging
import threading
from typing import Any

import torch

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, _estimate_value_size
from comfy_execution.provider_loops import loop_of

MOST_WAITING_BYTES = 1 << 30
SHUTDOWN_S = 10.0

log = logging.getLogger(__name__)
_lock = threading.Lock()
_waiting: dict["concurrent.futures.Future[Any]", int] = {}


def store_result(provider: CacheProvider, context: CacheContext, value: CacheValue) -> None:
    """Have *provider* store *value*; does not wait. Beyond 1 GiB on the way, a result is not stored, with a warning."""
    size_bytes = _estimate_value_size(value)
    with _lock:
        held_bytes = sum(_waiting.values())
    if held_bytes and held_bytes + size_bytes > MOST_WAITING_BYTES:
        log.warning("Cache provider %s is too slow: node %s is not stored", type(provider).__name__, context.node_id)
        return
    copied = CacheValue(outputs=_copy(value.outputs, {}), ui=_copy(value.ui, {}))
    future = asyncio.run_coroutine_threadsafe(provider.on_store(context, copied), loop_of(provider))
    with _lock:
        _waiting[future] = size_bytes
    future.add_done_callback(functools.partial(_ended, type(provider).__name__))


def finish_stores(timeout_s: float = SHUTDOWN_S) -> None:
    """Wait until everything is stored, up to *timeout_s*. Blocks; for the end of the process."""
    with _lock:
        waiting = list(_waiting)
    _, late = concurrent.futures.wait(waiting, timeout=timeout_s)
    if late:
        log.warning("%d results are given up: storing them takes longer than %.0f s", len(late), timeout_s)


def _ended(name: str, future: "concurrent.futures.Future[Any]") -> None:
    with _lock:
        _waiting.pop(future, None)
    if future.cancelled():
        log.warning("Cache provider %s cancelled its own store", name)
    elif future.exception() is not None:
        log.warning("Cache provider %s async store error: %s", name, future.exception())


def _copy(value: Any, done: dict[int, Any]) -> Any:
    """*value* with its own lists, dicts and tensors; one tensor that occurs twice stays one."""
    if id(value) not in done:
        if isinstance(value, torch.Tensor):
            done[id(value)] = value.detach().clone()
        elif type(value) in (list, tuple):
            done[id(value)] = type(value)(_copy(item, done) for item in value)
        elif type(value) is dict:
            done[id(value)] = {key: _copy(item, done) for key, item in value.items()}
        else:
            return value
    return done[id(value)]
