"""What holds preloaded models: the server's RAM model cache, or the pack itself in a server without one."""

import functools
import importlib
import inspect
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy_api.latest import io

from .loader_calls import NODE_FOLDERS, LoaderCall, call_of, is_v3


class Keeper(Protocol):
    """Loads models through the server's nodes and holds them. Any thread; a load blocks."""

    at_once: int

    def load(self, call: LoaderCall) -> bool:
        """Load what *call* loads, or find it, and hold it; whether it fits."""

    def holds(self, call: LoaderCall) -> bool:
        """Whether what *call* loads is held, whole and of the files as they are now."""

    def let_go(self, call: LoaderCall) -> bool:
        """No longer hold what *call* loaded; whether it was held."""

    def capacity_bytes(self) -> int | None:
        """Room for models, None without a limit."""


def keeper_for(classes: Mapping[str, type]) -> Keeper:
    """The keeper that suits this server."""
    ram_cache = getattr(importlib.import_module("comfy.model_management"), "ram_cache", None)
    cache = ram_cache() if callable(ram_cache) else None
    return CacheKeeper(cache) if cache is not None and cache.enabled and hasattr(cache, "holds") else OwnKeeper(classes)


class CacheKeeper:
    """Models stay in the server's RAM model cache, the last to go."""

    at_once = 2

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._held: dict[tuple[Any, ...], tuple[Any, frozenset[Hashable]]] = {}  # what was asked for -> the files' states, the cache's keys

    def load(self, call: LoaderCall) -> bool:
        """Load or find what *call* loads; whether the cache keeps all of it."""
        states = call.file_states()
        with self._cache.holds.block() as keys:
            call.run()
        self.let_go(call)
        for key in keys:
            self._cache.set_held(key, True)
        self._held[call.asks_for()] = states, frozenset(keys)
        return self.holds(call)

    def holds(self, call: LoaderCall) -> bool:
        """Whether each part is held. What was read from files that have been replaced since is let go."""
        states, keys = self._held.get(call.asks_for(), (None, frozenset()))
        if keys and states != call.file_states():
            self.let_go(call)
            return False
        return bool(keys) and all(self._cache.is_held(key) for key in keys)

    def let_go(self, call: LoaderCall) -> bool:
        """Keep each part like any other model's from now on."""
        _, keys = self._held.pop(call.asks_for(), (None, frozenset()))
        were_kept = [self._cache.set_held(key, False) for key in keys]
        return any(were_kept)

    def capacity_bytes(self) -> int | None:
        """The cache's cap."""
        stats = self._cache.stats()
        return None if stats is None else stats.cap_bytes


@dataclass(slots=True)
class _Kept:
    """A loader's outputs, of files in *states*, and the lock that lets a prompt wait while they are read."""

    states: tuple[Any, ...] | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    outputs: tuple[Any, ...] | None = None


class OwnKeeper:
    """The pack keeps the outputs of loader nodes, and the standard loader nodes ask it first."""

    at_once = 1

    def __init__(self, classes: Mapping[str, type]) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Any, ...], _Kept] = {}
        self._originals: dict[str, Any] = {}
        for name in NODE_FOLDERS:
            if name in classes:
                self._wrap(name, classes[name])

    def load(self, call: LoaderCall) -> bool:
        """Read what *call* loads, unless it is kept already."""
        with self._lock:
            kept = self._current(call) or self._kept.setdefault(call.asks_for(), _Kept(call.file_states()))
        with kept.lock:
            if kept.outputs is None:
                kept.outputs = tuple(self._run(call))
        return True

    def holds(self, call: LoaderCall) -> bool:
        """Whether the outputs are kept."""
        with self._lock:
            kept = self._current(call)
        return kept is not None and kept.outputs is not None

    def let_go(self, call: LoaderCall) -> bool:
        """Drop the outputs."""
        with self._lock:
            return self._kept.pop(call.asks_for(), None) is not None

    def capacity_bytes(self) -> int | None:
        """This server has no limit for it."""
        return None

    def find(self, call: LoaderCall) -> tuple[Any, ...] | None:
        """Clones of what is kept for *call*; waits while it is being read."""
        with self._lock:
            kept = self._current(call)
        if kept is None:
            return None
        with kept.lock:
            outputs = kept.outputs
        return None if outputs is None else tuple(value.clone() if hasattr(value, "clone") else value for value in outputs)

    def _current(self, call: LoaderCall) -> _Kept | None:
        """What is kept for *call*, with the lock held; what was read from files that have been replaced since is dropped."""
        kept = self._kept.get(call.asks_for())
        if kept is not None and kept.states != call.file_states():
            del self._kept[call.asks_for()]
            return None
        return kept

    def _run(self, call: LoaderCall) -> tuple[Any, ...]:
        """The node's own outputs, past the wrapper."""
        original = self._originals[call.node]
        if is_v3(call.node_class):
            return tuple(original.__func__(call.node_class, **call.inputs).args)
        return tuple(original(call.node_class(), **call.inputs))

    def _wrap(self, name: str, node_class: Any) -> None:
        """Let the class's function ask this keeper first."""
        folders = importlib.import_module("folder_paths")
        if is_v3(node_class):
            original = self._originals[name] = inspect.getattr_static(node_class, "execute")

            @functools.wraps(original.__func__)
            def execute(cls: type, *args: Any, **kwargs: Any) -> Any:
                found = self.find(_asked(name, node_class, original.__func__, (cls, *args), kwargs, folders))
                return original.__func__(cls, *args, **kwargs) if found is None else io.NodeOutput(*found)

            node_class.execute = classmethod(execute)
            return
        function = self._originals[name] = getattr(node_class, node_class.FUNCTION)

        @functools.wraps(function)
        def load(node: Any, *args: Any, **kwargs: Any) -> Any:
            found = self.find(_asked(name, node_class, function, (node, *args), kwargs, folders))
            return function(node, *args, **kwargs) if found is None else found

        setattr(node_class, node_class.FUNCTION, load)


def _asked(name: str, node_class: type, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], folders: Any) -> LoaderCall:
    """What a call of a standard loader node asks for, in the form in which a preloaded one was noted."""
    bound = inspect.signature(function).bind(*args, **kwargs).arguments
    return call_of(name, node_class, dict(list(bound.items())[1:]), folders)
