"""Loaders ask the RAM model cache first. Each part of a file (model, clip, vae …) is looked up, read and kept by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
from comfy.families.weight_source import WeightSource
from comfy.interruption import interrupt_flag
from comfy.ram_model_cache.storage import patcher_of
from comfy.ram_model_cache.values import Loaded
from comfy.ram_model_cache.weights_key import NotCacheable, WeightsKey, weights_key
from comfy.weight_files.opening import open_model_file

Options = Mapping[str, Any]
INDEPENDENT = "weights of its own were asked for"


@dataclass(frozen=True, slots=True)
class Part:
    """How to get one part of a file. *options* are those that change its weights; *estimate* tells the host bytes it will take before
    it is read; *load* reads it and returns the patcher, or an object with one, or None where the file has no such part.
    *bypass* says why it must not be cached ("" when it may be).
    """

    load: Callable[[], Any]
    estimate: Callable[[], int]
    options: Options = field(default_factory=dict)
    bypass: str = ""


def load_parts(paths: Sequence[str], parts: Mapping[str, Part], read_bytes: Callable[[], int | None] = lambda: None) -> dict[str, Any]:
    """The *parts* of the files *paths* by name: clones of cached models, or loaded now.

    *read_bytes* tells what has been read so far, for the records. Blocks; raises what a loader raises, and nothing stays reserved then.
    """
    cache = comfy.model_management.ram_cache()
    if not cache.enabled:
        return {name: part.load() for name, part in parts.items()}
    keys: dict[WeightsKey, str] = {}
    loaded: dict[str, Any] = {}
    for name, part in parts.items():
        try:
            if part.bypass:
                raise NotCacheable(part.bypass)
            keys[weights_key(name, paths, part.options)] = name
        except OSError:  # the loader's own error says more
            loaded[name] = part.load()
        except NotCacheable as reason:
            cache.note_bypass(f"{name} of {' + '.join(map(str, paths))}", str(reason))
            loaded[name] = part.load()
    if keys:
        found = cache.fetch(
            {key: parts[name].estimate for key, name in keys.items()},
            lambda missing: {key: _timed(parts[keys[key]], read_bytes) for key in missing},
        )
        loaded.update((name, found[key]) for key, name in keys.items())
    return loaded


def open_cached_file(path: str) -> AbstractContextManager[WeightSource]:
    """*path* for a loader: an interrupt ends the read, and with the RAM model cache on no second copy stays in the page cache."""
    return open_model_file(path, drop_pages=comfy.model_management.ram_cache().enabled, between_chunks=interrupt_flag.raise_if_set)


def _timed(part: Part, read_bytes: Callable[[], int | None]) -> Loaded:
    """Load *part* and note what it cost and its pristine weights."""
    before_bytes, started_s = read_bytes(), time.perf_counter()
    value = part.load()
    seconds, after_bytes = time.perf_counter() - started_s, read_bytes()
    patcher = None if value is None else patcher_of(value)
    if patcher is not None:
        comfy.model_management.process_models().note_base(patcher)
    return Loaded(value, seconds, None if before_bytes is None or after_bytes is None else after_bytes - before_bytes)
