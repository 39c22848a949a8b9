"""For servers that do not guard their cache providers: deadlines, stores that outlive the prompt, and no results that only look shareable.

Such a server runs providers on an event loop that ends with the prompt, waits for lookups without a limit, and hands over values that
later nodes may change.
"""

import asyncio
import atexit
import importlib
import logging
import threading
import time
import weakref
from concurrent.futures import Future, wait
from typing import Any

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, _estimate_value_size

from .namespaced_provider import NamespacedProvider
from .result_provider import ResultProvider
from .result_shapes import fits
from .units import GIB
from .value_codec import MAX_DEPTH, NotRepresentable

log = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S = 3.0
EXIT_TIMEOUT_S = 10.0
QUEUE_BYTES = 1 * GIB
FAILURES_TO_PAUSE = 3
PAUSE_S = 30.0
# Node class -> whether it is told more than its inputs.
_TOLD: "weakref.WeakKeyDictionary[type, bool]" = weakref.WeakKeyDictionary()


class DetachedProvider(CacheProvider):
    """A provider on a thread of its own. Called on the server's loop; never blocks it."""

    def __init__(self, inner: ResultProvider | NamespacedProvider) -> None:
        self.inner = inner
        self.url = inner.url
        self.measures = inner.measures
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._pending: dict[Future[None], int] = {}
        self._failures = 0
        self._paused_until_s = 0.0
        atexit.register(self.drain, EXIT_TIMEOUT_S)

    def renew(self) -> None:
        """Make new connections at the next use, and forget failures, whose times another clock counted."""
        self._failures, self._paused_until_s = 0, 0.0
        self.inner.renew()

    def should_cache(self, context: CacheContext, value: CacheValue | None = None) -> bool:
        """No output nodes, nothing that shows files of this machine, nothing while the store does not answer."""
        if time.monotonic() < self._paused_until_s or _acts(context.class_type):
            return False
        return value is None or (not _names_files(value.ui, MAX_DEPTH) and self.inner.should_cache(context, value))

    async def on_lookup(self, context: CacheContext) -> CacheValue | None:
        """The stored result, or None, within ``LOOKUP_TIMEOUT_S``."""
        future = self._submit(self.inner.on_lookup(context))
        try:
            value = await asyncio.wait_for(asyncio.wrap_future(future), LOOKUP_TIMEOUT_S)
        except Exception as error:
            self._failed(error)
            return None
        self._failures = 0
        if value is not None and not fits(_node_class(context.class_type), value.outputs):
            log.warning("The result that %s has for node %s is none that a %s gives", self.url, context.node_id, context.class_type)
            return None
        return value

    async def on_store(self, context: CacheContext, value: CacheValue) -> None:
        """Take a copy and return; it is stored on the pack's own thread. Not stored when too much is waiting already."""
        size = _estimate_value_size(value)
        with self._lock:
            is_full = sum(self._pending.values()) + size > QUEUE_BYTES
        if is_full:
            self.measures.add(errors=1)
            return
        try:
            copy = CacheValue([_copy(items, MAX_DEPTH) for items in value.outputs], _copy(value.ui, MAX_DEPTH))
        except Exception as error:
            log.debug("The result of node %s (%s) is not shared: %s", context.node_id, context.class_type, error)
            return
        future = self._submit(self.inner.on_store(context, copy))
        with self._lock:
            self._pending[future] = size
        future.add_done_callback(self._stored)

    def drain(self, timeout_s: float) -> None:
        """Wait until everything is stored. Blocks up to *timeout_s*."""
        with self._lock:
            pending = list(self._pending)
        wait(pending, timeout=timeout_s)

    def _stored(self, future: "Future[None]") -> None:
        with self._lock:
            self._pending.pop(future, None)
        if not future.cancelled() and future.exception() is not None:
            self._failed(future.exception())

    def _failed(self, error: BaseException | None) -> None:
        self._failures += 1
        log.warning("%s: %s: %s", self.url, type(error).__name__, error)
        if self._failures >= FAILURES_TO_PAUSE:
            # After the pause one more failure is enough for the next.
            self._failures, self._paused_until_s = FAILURES_TO_PAUSE - 1, time.monotonic() + PAUSE_S
            log.warning("%s failed repeatedly and is left alone for %.0f s", self.url, PAUSE_S)

    def _submit(self, coroutine: Any) -> "Future[Any]":
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=f"keepwarm-{self.inner.store.name}", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


def _acts(class_type: str) -> bool:
    """Whether nodes of the class act as well: save a file, show a picture, ask a paid service."""
    class_def = _node_class(class_type)
    if class_def is None or getattr(class_def, "OUTPUT_NODE", False) or getattr(class_def, "NOT_IDEMPOTENT", False):
        return True
    if class_def not in _TOLD:
        # Asking a class for its inputs may list folders, or fail.
        try:
            _TOLD[class_def] = bool(set(map(str, (class_def.INPUT_TYPES().get("hidden") or {}).values())) - {"UNIQUE_ID"})
        except Exception:
            log.warning("Results of %s are not shared: the class does not say what it is told", class_type, exc_info=True)
            _TOLD[class_def] = True
    return _TOLD[class_def]


def _node_class(class_type: str) -> Any:
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS.get(class_type)


def _names_files(ui: Any, depth: int) -> bool:
    """Whether what a node shows is in files; what is nested deeper than anything can be stored counts as such."""
    if isinstance(ui, dict):
        return not depth or "filename" in ui or any(_names_files(item, depth - 1) for item in ui.values())
    return isinstance(ui, list | tuple) and (not depth or any(_names_files(item, depth - 1) for item in ui))


def _copy(value: Any, depth: int) -> Any:
    if not depth:
        raise NotRepresentable(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict) and type(value) is dict:
        return {key: _copy(item, depth - 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copy(item, depth - 1) for item in value)
    if (type(value).__module__, type(value).__name__) == ("torch", "Tensor"):
        return value.detach().clone()
    return value.copy() if (type(value).__module__, type(value).__name__) == ("numpy", "ndarray") else value
