"""What holds preloaded models: the server's RAM model cache, or the pack itself in a server without one."""

import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy_api.latest import io

from ..free_memory import free_bytes
from ..units import GIB, megabytes
from .loader_calls import NODE_FOLDERS, LoaderCall, call_of, is_v3

HEADROOM_BYTES = GIB


class Keeper(Protocol):
    """Loads models through the server's nodes and holds them. Any thread; a load blocks."""

    at_once: int

    def load(self, call: LoaderCall) -> str:
        """Load what *call* loads, or find it, and hold it; returns "", or why there is no room for it, where possible before it is read."""

    def holds(self, call: LoaderCall) -> bool:
        """Whether what *call* loads is held, whole and of the files as they are now."""

    def let_go(self, call: LoaderCall) -> bool:
        """No longer hold what *call* loaded; whether it was held."""

    def take_over(self, is_same: Callable[[str], bool], renamed: Callable[[Any], Any]) -> None:
        """After a restore: files whose path *is_same* accepts are those that were read, whatever identifies them now.

        *renamed* gives the key of a model in the server's RAM model cache, which has renamed its own already.
        """

    def capacity_bytes(self) -> int | None:
        """Room for models, None without a limit."""

    def room_bytes(self) -> int | None:
        """What is free of that."""


def cache_capacity_bytes() -> int | None:
    """The size of the server's RAM model cache, None in a server without one."""
    ram_cache = getattr(importlib.import_module("comfy.model_management"), "ram_cache", None)
    stats = ram_cache().stats() if callable(ram_cache) else None
    return None if stats is None else stats.cap_bytes


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
        # What was asked for -> by which call, the states of its files, the cache's keys.
        self._held: dict[tuple[Any, ...], tuple[LoaderCall, Any, frozenset[Hashable]]] = {}

    def load(self, call: LoaderCall) -> str:
        """Load or find what *call* loads. Nothing is read unless the cache can keep all of it."""
        states = call.file_states()
        try:
            with self._cache.holds.block() as keys:
                call.run()
        except importlib.import_module("comfy.ram_model_cache.holds").NoRoom as reason:
            return f"{reason}, and the RAM model cache holds {self._room_text()}; raise --ram-model-cache-mb"
        self.let_go(call)
        for key in keys:
            self._cache.set_held(key, True)
        self._held[call.asks_for()] = call, states, frozenset(keys)
        return "" if self.holds(call) else f"the RAM model cache holds {self._room_text()}; raise --ram-model-cache-mb"

    def _room_text(self) -> str:
        stats = self._cache.stats()
        return f"{megabytes(stats.kept_bytes)} of at most {megabytes(stats.cap_bytes)} already"

    def holds(self, call: LoaderCall) -> bool:
        """Whether each part is held. What was read from files that have been replaced since is let go."""
        _, states, keys = self._held.get(call.asks_for(), (call, None, frozenset()))
        if keys and states != call.file_states():
            self.let_go(call)
            return False
        return bool(keys) and all(self._cache.is_held(key) for key in keys)

    def let_go(self, call: LoaderCall) -> bool:
        """Keep each part like any other model's from now on."""
        _, _, keys = self._held.pop(call.asks_for(), (call, None, frozenset()))
        were_kept = [self._cache.set_held(key, False) for key in keys]
        return any(were_kept)

    def take_over(self, is_same: Callable[[str], bool], renamed: Callable[[Any], Any]) -> None:
        """Note the new identities of the same files, and the keys under which the cache has their models now."""
        for asked, (call, states, keys) in list(self._held.items()):
            if states != call.file_states() and all(map(is_same, call.files)):
                self._held[asked] = call, call.file_states(), frozenset(map(renamed, keys))

    def capacity_bytes(self) -> int | None:
        """The cache's cap."""
        return cache_capacity_bytes()

    def room_bytes(self) -> int | None:
        """What is free without dropping anything."""
        stats = self._cache.stats()
        return None if stats.cap_bytes is None else stats.cap_bytes - stats.kept_bytes


@dataclass(slots=True)
class _Kept:
    """The outputs of *call*, a loader's, of files in *states*, and the lock that lets a prompt wait while they are read."""

    call: LoaderCall
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

    def load(self, call: LoaderCall) -> str:
        """Read what *call* loads, unless it is kept already, or the memory that is free would not do."""
        missing_bytes = 0 if self.holds(call) else call.file_bytes() + HEADROOM_BYTES - free_bytes()
        if missing_bytes > 0:
            files, missing = megabytes(call.file_bytes()), megabytes(missing_bytes)
            return f"its files have {files}, and {missing} of RAM are missing if {megabytes(HEADROOM_BYTES)} are to stay free"
        with self._lock:
            kept = self._current(call) or self._kept.setdefault(call.asks_for(), _Kept(call, call.file_states()))
        with kept.lock:
            if kept.outputs is None:
                kept.outputs = tuple(self._run(call))
        return ""

    def holds(self, call: LoaderCall) -> bool:
        """Whether the outputs are kept."""
        with self._lock:
            kept = self._current(call)
        return kept is not None and kept.outputs is not None

    def let_go(self, call: LoaderCall) -> bool:
        """Drop the outputs."""
        with self._lock:
            return self._kept.pop(call.asks_for(), None) is not None

    def take_over(self, is_same: Callable[[str], bool], renamed: Callable[[Any], Any]) -> None:
        """Note the new identities of the same files."""
        with self._lock:
            for kept in self._kept.values():
                if all(map(is_same, kept.call.files)):
                    kept.states = kept.call.file_states()

    def capacity_bytes(self) -> int | None:
        """This server has no limit for it."""
        return None

    def room_bytes(self) -> int | None:
        """No limit here, either."""
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
