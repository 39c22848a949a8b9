"""Loads with a store of weights: which parts are mapped, which are read, and who waits for whom."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.model_management
from comfy.cli_args import args
from comfy.interruption import interrupt_flag
from comfy.loading.model_files import ModelFiles
from comfy.loading.stored_source import Shelf
from comfy.quantisation import kitchen
from comfy.ram_model_cache.storage import host_storages, patcher_of
from comfy.ram_model_cache.weights_key import WeightsKey
from comfy.ram_model_store.at_hand import parts_at_hand
from comfy.ram_model_store.folder import part_name
from comfy.ram_model_store.locks import HeldLock
from comfy.ram_model_store.mapping import MappedPart, address_of
from comfy.ram_model_store.store import PartKey, RamModelStore
from comfy.ram_model_store.writing import PartWriter
from comfy.weight_files.pace import current_pace

log = logging.getLogger(__name__)
LEAST_SHARE = 0.9  # of a model's memory that must be what was read
DTYPE_FLAGS = ("fp16", "fp32", "fp64", "bf16", "fp8", "cpu_vae", "upcast")
NOT_OF_WEIGHTS = ("embedding_directory",)  # options that decide about the model around them, which every server builds for itself
_of_thread = threading.local()


class StoredParts:
    """The parts *keys* of *files*, for one call of the RAM model cache. A context manager, which ends what it holds; one thread."""

    def __init__(self, store: RamModelStore, files: ModelFiles, keys: Mapping[Hashable, object]) -> None:
        self._store, self._files = store, files
        world = _world()
        self._keys: dict[Hashable, PartKey] = {key: stored_key(key, world) for key in keys if isinstance(key, WeightsKey)}
        self._found: dict[Hashable, MappedPart] = {}
        self._claims: dict[Hashable, HeldLock] = {}
        self._missing: set[Hashable] = set()
        self._shelf = files.shelf = Shelf()

    def __enter__(self) -> StoredParts:
        self._token = parts_at_hand.set(self._found)
        return self

    def __exit__(self, *error: object) -> None:
        for key in list(self._claims):
            self._release(key)
        self._files.shelf = None
        parts_at_hand.reset(self._token)
        for key, part in self._found.items():
            self._store.check_soon(part, self._keys[key], functools.partial(_discard, key))
        if error[0] is None:
            self._store.note_uses([stored for key, stored in self._keys.items() if key not in self._missing])

    def look_up(self, missing: list[Hashable]) -> None:
        """Find the *missing* parts, or gain the right to read them; waits while another process reads one, in an order that all keep."""
        nested = bool(getattr(_of_thread, "claims", 0))
        pace = current_pace.get()
        check = interrupt_flag.raise_if_set if pace is None else pace.check
        for key in sorted((key for key in missing if key in self._keys and key not in self._missing), key=lambda key: self._keys[key].name):
            self._missing.add(key)
            stored = self._keys[key]
            part = self._store.find(stored)
            if part is None:
                claim = self._store.claim(stored, check, wait=not nested)
                part = None if claim is None else self._store.find(stored, again=True)
                self._keep_claim(key, claim, part)
            if part is not None and len(part.table.sources) == len(self._files.paths):
                self._found[key] = part
                self._shelf.found.append(part)

    def _keep_claim(self, key: Hashable, claim: HeldLock | None, part: MappedPart | None) -> None:
        """Hold *claim* as long as *key* is read; a *part* that was written meanwhile needs none."""
        if claim is None:
            return
        if part is not None:
            claim.release()
            return
        self._claims[key] = claim
        _of_thread.claims = getattr(_of_thread, "claims", 0) + 1

    def _release(self, key: Hashable) -> None:
        claim = self._claims.pop(key, None)
        if claim is not None:
            _of_thread.claims -= 1
            claim.release()

    def bytes_of(self, key: Hashable) -> int | None:
        """What the part *key* takes, if it was found."""
        part = self._found.get(key)
        return None if part is None else part.head.table_start

    def seconds_of(self, key: Hashable) -> float | None:
        """What reading the part *key* took whoever stored it, if it was found."""
        part = self._found.get(key)
        return None if part is None else part.head.seconds

    @contextmanager
    def building(self, key: Hashable, size_bytes: Callable[[], int]) -> Iterator[Callable[[Any], None]]:
        """Around the loader of *key*: its tensors come from the store, or go into it. Yields what is to be told the loader's result."""
        writer = None if key in self._found else self._writer(key, size_bytes)
        self._shelf.current, self._shelf.writer, self._shelf.is_building = self._found.get(key), writer, True
        try:
            if writer is None:
                yield _accept
            else:
                yield from self._recording(key, writer)
        finally:
            self._shelf.current, self._shelf.writer, self._shelf.is_building = None, None, False
            if writer is not None:
                self._store.abandon(writer)
            self._release(key)

    def _writer(self, key: Hashable, size_bytes: Callable[[], int]) -> PartWriter | None:
        """For the part *key*, if this process may read it, the file has such a part, and its weights are what is read."""
        estimated_bytes = size_bytes() if key in self._claims else 0
        if not estimated_bytes or self._files.multiplies():
            return None
        return self._store.begin(self._keys[key], estimated_bytes)

    def _recording(self, key: Hashable, writer: PartWriter) -> Iterator[Callable[[Any], None]]:
        """Around the loader of a part that goes into the store."""
        began_s = time.perf_counter()
        self._shelf.write_common()
        yield functools.partial(_check_memory, writer, self._keys[key].label)
        facts = self._files.stored_facts()
        if facts is not None and isinstance(key, WeightsKey) and key.is_current() and not writer.is_unfit:
            self._store.finish(writer, self._keys[key], facts, time.perf_counter() - began_s)


def _discard(key: Hashable) -> None:
    """Have the model under *key* read again at its next use."""
    comfy.model_management.ram_cache().discard(key, "its weights in the store were damaged")


def _accept(value: Any) -> None:
    """Of what comes from the store, or does not go into it, nothing is asked."""


def _check_memory(writer: PartWriter, label: str, value: Any) -> None:
    """Mark what *writer* has of *label* as unfit for the store where the model *value* lies elsewhere: it would take memory for nothing."""
    patcher = None if value is None else patcher_of(value)
    storages = {} if patcher is None else host_storages(patcher)
    places = [(address_of(mapping), len(mapping)) for mapping in writer.mappings]
    inside = 0
    for storage, size in storages.items():
        pointer = storage[2] if isinstance(storage, tuple) and len(storage) > 2 else 0
        inside += size if any(start <= pointer < start + length for start, length in places) else 0
    if not writer.problem and (not inside or inside < LEAST_SHARE * sum(storages.values())):
        log.info("RAM model store: %s is not stored: its loader keeps other memory than it reads into", label)
        writer.is_unfit = True


def stored_key(key: WeightsKey, world: str) -> PartKey:
    """How *key* is known in a store; *world*: what else decides about its weights."""
    options = tuple(option for option in key.options if option[0] not in NOT_OF_WEIGHTS)
    name = part_name(repr((key.component, key.paths)), repr(key.files), repr((key.component, options, world)))
    return PartKey(name, repr((key.component, key.files, options, world)), key.label)


def _world() -> str:
    """What decides about weights besides a key: flags about dtypes, what the device makes of them, and the library for quantised ones."""
    flags = {name: value for name, value in sorted(vars(args).items()) if value and any(part in name for part in DTYPE_FLAGS)}
    answers: Any = comfy.model_management.process_models().policy().answers()
    return repr((flags, answers, kitchen.version()))
