"""Loaders ask the RAM model cache first. Each part of a file (model, clip, vae …) is looked up, read and kept by itself.

The way down, each step calling only the next: a loader (``comfy.sd``, ``comfy.loading.checkpoint`` …) names its files and parts →
:func:`load_parts` → the cache, which calls back once, for what it lacks → :meth:`Part.load` → :meth:`ModelFiles.sources` →
:func:`open_model_file` → ``WeightReader`` → ``preadv``.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

import comfy.model_management
from comfy.loading.model_files import ModelFiles
from comfy.loading.stored_parts import StoredParts
from comfy.ram_model_cache.cache import RamModelCache
from comfy.ram_model_cache.storage import patcher_of
from comfy.ram_model_cache.values import Loaded
from comfy.ram_model_cache.weights_key import NotCacheable, weights_key
from comfy.weight_files.pace import current_pace

Options = Mapping[str, Any]
Value = TypeVar("Value")  # what a loader gives: a patcher, an object with one as ``patcher``, or None
INDEPENDENT = "weights of its own were asked for"


class Part(Generic[Value]):
    """How to get one part of some files. *options* are those that change its weights; *bypass* says why it must not be cached ("" when
    it may be).
    """

    is_stored = True  # in a store of weights; not where the weights are no views of what the files' sources give

    def __init__(self, options: Options | None = None, bypass: str = "") -> None:
        self.options = options or {}
        self.bypass = bypass

    def load(self) -> Value:
        """Read it; returns the patcher, or an object with one as ``patcher``, or None where the files have no such part. Blocks."""
        raise NotImplementedError

    def estimate_bytes(self) -> int:
        """The bytes of host memory it will take, told before it is read; opens the files."""
        raise NotImplementedError


def load_parts(files: ModelFiles, parts: Mapping[str, Part[Value]]) -> dict[str, Value]:
    """The *parts* of *files* by name: clones of cached models, or loaded now.

    Blocks; raises what a loader raises, and nothing stays reserved then.
    """
    cache = comfy.model_management.ram_cache()
    if not cache.enabled:
        return {name: part.load() for name, part in parts.items()}
    reading = _Reading[Value](files)
    loaded: dict[str, Value] = {}
    for name, part in parts.items():
        try:
            if part.bypass:
                raise NotCacheable(part.bypass)
            reading.parts[weights_key(name, files.paths, part.options)] = name, part
        except OSError:  # the loader's own error says more
            loaded[name] = part.load()
        except NotCacheable as reason:
            cache.note_bypass(f"{name} of {' + '.join(map(str, files.paths))}", str(reason))
            loaded[name] = part.load()
    if reading.parts:
        store = comfy.model_management.process_models().store()
        used = {key: name for key, (name, part) in reading.parts.items() if part.is_stored}
        with contextlib.nullcontext() if store is None or not used else StoredParts(store, files, used) as reading.stored:
            found = cache.fetch({key: functools.partial(reading.estimate, key) for key in reading.parts}, reading.load)
        loaded.update((name, found[key]) for key, (name, _) in reading.parts.items())
    return loaded


class _Reading(Generic[Value]):
    """Reads for the cache what it lacks of *files*: parts by key, with their names."""

    def __init__(self, files: ModelFiles) -> None:
        self.parts: dict[Hashable, tuple[str, Part[Value]]] = {}
        self.stored: StoredParts | None = None
        self._files = files

    def estimate(self, key: Hashable) -> int:
        """The bytes of host memory that the part *key* takes; asked of missing parts, of all before the first is loaded."""
        cache = comfy.model_management.ram_cache()
        if self.stored is not None and isinstance(cache, RamModelCache):
            stored = [other for other, (_, part) in self.parts.items() if part.is_stored]
            self.stored.look_up([other for other in stored if not cache.ahead.has([other])])
            if (known_bytes := self.stored.bytes_of(key)) is not None:
                return known_bytes
        return self.parts[key][1].estimate_bytes()

    def load(self, missing: Sequence[Hashable]) -> dict[Hashable, Loaded]:
        """Every part of the keys *missing*."""
        return {key: self._load_stored(key) for key in missing}

    def _load_stored(self, key: Hashable) -> Loaded:
        """Load the part *key*, by way of the store where there is one."""
        part = self.parts[key][1]
        if self.stored is None:
            return self._load(part)
        with self.stored.building(key, part.estimate_bytes) as check:
            loaded = self._load(part)
            check(loaded.value)
        seconds = self.stored.seconds_of(key)
        return loaded if seconds is None or loaded.read_bytes else replace(loaded, seconds=seconds, tier="store")

    def _load(self, part: Part[Value]) -> Loaded:
        """Load *part* and note what it cost and its pristine weights."""
        before_bytes, started_s = self._files.read_bytes(), _reading_s()
        value = part.load()
        seconds, after_bytes = _reading_s() - started_s, self._files.read_bytes()
        patcher = None if value is None else patcher_of(value)
        if patcher is not None:
            comfy.model_management.process_models().note_base(patcher)
        return Loaded(value, seconds, None if before_bytes is None or after_bytes is None else after_bytes - before_bytes)


def _reading_s() -> float:
    """A clock that stands still while a load in the background gives way to others."""
    pace = current_pace.get()
    return time.perf_counter() - (0.0 if pace is None else pace.paused_s)
