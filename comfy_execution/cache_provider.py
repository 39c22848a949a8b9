"""External caches for node results: the interface they implement, and the registry of those in use.

The registry may be read and changed from any thread; readers get an immutable snapshot.
"""

import hashlib
import json
import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class CacheContext:
    """Which result is meant: the node, its class and the key, 64 hexadecimal digits that are equal for equal work."""

    node_id: str
    class_type: str
    cache_key_hash: str


@dataclass
class CacheValue:
    """A result: per output a list of values, and what the page shows, ``{"output": …, "meta": …}`` or None."""

    outputs: list
    ui: dict | None = None


class CacheProvider(ABC):
    """An external cache. The coroutines run on the execution loop and should not block it; an exception counts as a miss."""

    @abstractmethod
    async def on_lookup(self, context: CacheContext) -> CacheValue | None:
        """The value stored for *context*, or None."""

    @abstractmethod
    async def on_store(self, context: CacheContext, value: CacheValue) -> None:
        """Store *value*; the tensors in it must not be changed."""

    def should_cache(self, context: CacheContext, value: CacheValue | None = None) -> bool:
        """Whether to look *context* up (without *value*) or to store it (with)."""
        return True

    def on_prompt_start(self, prompt_id: str) -> None:
        """A prompt begins."""

    def on_prompt_end(self, prompt_id: str) -> None:
        """A prompt has ended, with success or not."""


class ProviderRegistry:
    """The providers in use, in the order they are asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._providers: tuple[CacheProvider, ...] = ()

    def register(self, provider: CacheProvider) -> None:
        """Ask *provider* from now on, after those there already; registering it again changes nothing and logs a warning."""
        with self._lock:
            known = any(provider is one for one in self._providers)
            if not known:
                self._providers = (*self._providers, provider)
        if known:
            log.warning("Cache provider %s is already registered", type(provider).__name__)
        else:
            log.debug("Registered cache provider %s", type(provider).__name__)

    def unregister(self, provider: CacheProvider) -> None:
        """Do not ask *provider* any more; for an unknown one a warning is logged."""
        with self._lock:
            known = any(provider is one for one in self._providers)
            self._providers = tuple(one for one in self._providers if one is not provider)
        if known:
            log.debug("Unregistered cache provider %s", type(provider).__name__)
        else:
            log.warning("Cache provider %s is not registered", type(provider).__name__)

    def snapshot(self) -> tuple[CacheProvider, ...]:
        """The providers at this moment."""
        return self._providers

    def clear(self) -> None:
        """Forget every provider."""
        with self._lock:
            self._providers = ()


_registry = ProviderRegistry()


def register_cache_provider(provider: CacheProvider) -> None:
    """Add a provider to this process's registry."""
    _registry.register(provider)


def unregister_cache_provider(provider: CacheProvider) -> None:
    """Take a provider out of this process's registry."""
    _registry.unregister(provider)


def _get_cache_providers() -> tuple[CacheProvider, ...]:
    return _registry.snapshot()


def _has_cache_providers() -> bool:
    return bool(_registry.snapshot())


def _clear_cache_providers() -> None:
    _registry.clear()


def _canonicalize(obj: Any) -> Any:
    """*obj* as JSON data in which every type is tagged; equal for equal values of equal types only.

    The form is ComfyUI's, for packs that use it. Keys of results are made of ``signatures.canonical_bytes``, which needs no recursion.
    Raises ``ValueError`` for a type without a canonical form (subclasses included, which may mean more) and for NaN.
    """
    kind = type(obj)
    if kind is float and not math.isfinite(obj):
        if obj != obj:
            raise ValueError("NaN is unequal to itself")
        return "float", repr(obj)
    if obj is None or kind in (bool, int, float, str):
        return kind.__name__, obj
    if kind is bytes:
        return "__bytes__", obj.hex()
    if kind is tuple:
        return "__tuple__", [_canonicalize(item) for item in obj]
    if kind is list:
        return [_canonicalize(item) for item in obj]
    if kind in (set, frozenset):
        return f"__{kind.__name__}__", sorted((_canonicalize(item) for item in obj), key=_compact)
    if kind is dict:
        return {"__dict__": sorted(([_canonicalize(key), _canonicalize(value)] for key, value in obj.items()), key=_compact)}
    raise ValueError(f"values of type {kind.__name__} have no canonical form")


def _compact(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _serialize_cache_key(cache_key: Any) -> str | None:
    """The SHA-256 of *cache_key*'s canonical form, the same in every process; None, with a warning, when it has none."""
    try:
        return hashlib.sha256(_compact(_canonicalize(cache_key)).encode("utf-8", "surrogatepass")).hexdigest()
    except (ValueError, TypeError, RecursionError) as error:
        log.warning("The cache key cannot be used outside this process: %s", error)
        return None


def _contains_self_unequal(obj: Any) -> bool:
    """Whether *obj* holds, at any depth, something unequal to itself (NaN) or something that cannot be compared."""
    waiting = [obj]
    kept: list[Any] = []  # ids in `seen` stay in use as long as their objects live
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        try:
            if not (current == current):
                return True
        except Exception:
            return True
        kept += (parts := list(_parts(current)))
        waiting += parts
    return False


def _parts(obj: Any) -> Iterator[Any]:
    if isinstance(obj, dict):
        yield from obj.keys()
        yield from obj.values()
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from obj
    elif hasattr(obj, "value") and not isinstance(obj, type):
        yield obj.value


def _estimate_value_size(value: Any) -> int:
    """The bytes of all tensors in a result's outputs, each once; 0 when there are none. Other objects are not counted."""
    total_bytes = 0
    waiting = [value.outputs]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, dict | list | tuple | set | frozenset):
            waiting.extend(current.values() if isinstance(current, dict) else current)
        elif callable(getattr(current, "numel", None)) and callable(getattr(current, "element_size", None)):
            total_bytes += current.numel() * current.element_size()
    return total_bytes
