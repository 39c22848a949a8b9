"""The models of a RAM model cache by short names: for status pages, and for those who act on one model that a page showed them.

Portable: standard library and the modules next to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from comfy.ram_model_cache.models import LoadedModel
from comfy.ram_model_cache.storage import base_of
from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.values import Entry

NAME_LENGTH = 16


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model; sizes in bytes, times in seconds, *paths* real ones, *users* everybody besides the cache."""

    name: str
    label: str
    component: str
    paths: tuple[str, ...]
    state: str
    host_bytes: int
    device_bytes: int
    users: int
    held: bool
    idle_s: float
    reload_s: float


class NamedModels:
    """A cache's models, each under the name that its key has in every process. Any thread; names that are not known do nothing."""

    def __init__(self, changing: Callable[[], AbstractContextManager[ModelTable]], clock: Callable[[], float]) -> None:
        """*changing* opens the cache's table, *clock* is what its times are on."""
        self._changing, self._clock = changing, clock

    def facts(self) -> list[ModelFacts]:
        """Every model, those that are lent included."""
        with self._changing() as table:
            now_s = self._clock()
            found = [(_facts(key, entry, now_s), entry.device_models()) for key, entry in table.entries.items()]
        # Outside the lock: what a device holds is asked of objects that are not ours.
        return [replace(facts, device_bytes=sum(map(_loaded_bytes, loaded_models))) for facts, loaded_models in found]

    def hold(self, name: str, held: bool) -> bool:
        """Mark the model as the last to go, or as an ordinary one; whether there is one."""
        with self._changing() as table:
            key = _key(table, name)
            return key is not None and table.hold(key, held)

    def drop(self, name: str, why: str) -> bool:
        """Evict the model, held or not; whether it was kept. What is in use lives until its users are done."""
        with self._changing() as table:
            entry = table.kept(_key(table, name))
            if entry is not None:
                table.evict(entry, why, "cleared")
        return entry is not None

    def name_of(self, loaded_model: LoadedModel) -> str | None:
        """The name of the model that *loaded_model* has on a device; None when the cache does not know it."""
        base = base_of(getattr(loaded_model, "model", None))
        with self._changing() as table:
            entry = table.of_model(loaded_model, base)
            return None if entry is None else name_of(entry.key)


def name_of(key: Hashable) -> str:
    """A short name for *key*, the same in every process for what prints the same."""
    return hashlib.sha256(repr(key).encode("utf-8", "surrogatepass")).hexdigest()[:NAME_LENGTH]


def _key(table: ModelTable, name: str) -> Hashable:
    return next((key for key in table.entries if name_of(key) == name), None)


def _facts(key: Hashable, entry: Entry, now_s: float) -> ModelFacts:
    """The facts of *entry* as they are now, but for the bytes on devices."""
    return ModelFacts(
        name=name_of(key),
        label=entry.label,
        component=getattr(key, "component", ""),
        paths=tuple(getattr(key, "paths", ())),
        state=entry.state.value,
        host_bytes=entry.size_bytes,
        device_bytes=0,
        users=len(entry.watches) + entry.busy,
        held=entry.held,
        idle_s=now_s - entry.used_s,
        reload_s=entry.seconds,
    )


def _loaded_bytes(loaded_model: LoadedModel) -> int:
    patcher = loaded_model.model
    return 0 if patcher is None else int(getattr(patcher, "loaded_size", int)())
