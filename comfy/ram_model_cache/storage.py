"""Bytes of host memory behind models, each storage counted once however many models, clones or tied weights use it.

Portable: works on tensors by their methods and imports nothing but the standard library.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

from comfy.ram_model_cache.models import Patcher

HOST_DEVICE_TYPES = ("cpu", "mps")
Storages = Mapping[Hashable, int]


def patcher_of(value: Any) -> Patcher | None:
    """The patcher behind a loader's result: *value* itself, or its ``patcher`` (CLIP, VAE, …); None when there is none."""
    inner = getattr(value, "patcher", None)
    return inner if inner is not None else value if hasattr(value, "model") and hasattr(value, "clone") else None


def own_patcher(value: Any) -> Patcher:
    """The patcher behind a value that the cache has taken; it takes none without one."""
    patcher = patcher_of(value)
    assert patcher is not None
    return patcher


def hand_out(value: Any) -> Any:
    """A clone of a loader's result whose patcher descends from the original's; a wrapper without ``clone`` is copied shallowly."""
    if hasattr(value, "clone"):
        return value.clone()
    twin = copy.copy(value)
    twin.patcher = value.patcher.clone()
    return twin


def base_of(patcher: Patcher | None) -> Patcher | None:
    """The patcher at the root of the ``parent`` chain; None for None."""
    while (parent := getattr(patcher, "parent", None)) is not None:
        patcher = parent
    return patcher


def is_dynamic(patcher: Patcher | None) -> bool:
    """Whether its owner faults this model's weights in on demand and keeps its own account of pinned memory."""
    return bool(getattr(patcher, "is_dynamic", bool)())


def host_storages(patcher: Patcher, is_elsewhere: Callable[[Any], bool] | None = None) -> dict[Hashable, int]:
    """{storage: bytes} of the host memory that *patcher*'s module and backups hold, except tensors of which *is_elsewhere* is true.

    ``mps`` shares the host's RAM and counts; other accelerators, ``meta`` and memory-mapped files do not. A dynamic patcher counts as
    the buffers it has read weights into, whether pinned (registered) or not. Valid until weights move; measure again then.
    """
    if is_dynamic(patcher):
        in_buffers = getattr(patcher, "loaded_ram_size", patcher.pinned_memory_size)  # ComfyUI tells the two apart since 0.24
        return {("buffers", id(patcher)): max(0, in_buffers(), patcher.pinned_memory_size())}
    found: dict[Hashable, int] = {}
    for tensor in _tensors(patcher):
        device = getattr(tensor, "device", None)
        if device is None or device.type not in HOST_DEVICE_TYPES or (is_elsewhere is not None and is_elsewhere(tensor)):
            continue
        try:
            storage = tensor.untyped_storage()
            pointer, size, mapped = storage.data_ptr(), storage.nbytes(), getattr(storage, "filename", None) is not None
        except (RuntimeError, NotImplementedError, AttributeError):  # a wrapper subclass has no storage of its own
            pointer, size, mapped = id(tensor), tensor.numel() * tensor.element_size(), False
        if size and not mapped:
            found[(device.type, device.index, pointer, size)] = size
    return found


def _tensors(patcher: Patcher) -> Iterator[Any]:
    module = patcher.model
    for name in ("parameters", "buffers"):
        if callable(getattr(module, name, None)):
            yield from _with_memory(getattr(module, name)())
    yield from _with_memory(getattr(kept, "weight", kept) for kept in list(getattr(patcher, "backup", {}).values()))


def _with_memory(tensors: Iterable[Any]) -> Iterator[Any]:
    """*tensors*, those that are made of others (quantised weights) as what they are made of."""
    for tensor in tensors:
        if hasattr(type(tensor), "__tensor_flatten__"):
            yield from _with_memory(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor


class StorageLedger:
    """Which owner uses which storages, and the bytes of all of them, kept up to date by each change. Its owner's lock guards it."""

    def __init__(self) -> None:
        self._owned: dict[Hashable, dict[Hashable, int]] = {}
        self._users: dict[Hashable, list[Hashable]] = {}
        self._own_bytes: dict[Hashable, int] = {}
        self.total_bytes = 0

    def put(self, owner: Hashable, storages: Storages) -> None:
        """Set what *owner* uses, in place of what it used before."""
        self.remove(owner)
        self._owned[owner] = dict(storages)
        self._own_bytes[owner] = 0
        for storage, size in storages.items():
            users = self._users.setdefault(storage, [])
            users.append(owner)
            if len(users) == 1:
                self.total_bytes += size
                self._own_bytes[owner] += size
            elif len(users) == 2:
                self._own_bytes[users[0]] -= size

    def remove(self, owner: Hashable) -> None:
        """Forget *owner*; does nothing for one that is not known."""
        for storage, size in self._owned.pop(owner, {}).items():
            users = self._users[storage]
            users.remove(owner)
            if not users:
                del self._users[storage]
                self.total_bytes -= size
            elif len(users) == 1:
                self._own_bytes[users[0]] += size
        self._own_bytes.pop(owner, None)

    def __contains__(self, owner: Hashable) -> bool:
        return owner in self._owned

    def own_bytes(self, owner: Hashable) -> int:
        """Bytes that removing *owner* would free."""
        return self._own_bytes.get(owner, 0)

    def added_bytes(self, storages: Storages) -> int:
        """Bytes that one more owner of *storages* would add."""
        return sum(size for storage, size in storages.items() if storage not in self._users)

    def check(self, measured: Mapping[Hashable, Storages], note: Callable[[str], None]) -> None:
        """Compare with what *measured* says owner by owner, and the total with the sum; differences go to *note*."""
        if self._owned.keys() != measured.keys():
            note(f"the ledger has owners {sorted(map(str, self._owned))}, kept are {sorted(map(str, measured))}")
        unique = _merged(self._owned.values())
        if sum(unique.values()) != self.total_bytes or unique.keys() != self._users.keys():
            note(f"the ledger's total is {self.total_bytes} bytes, its storages add up to {sum(unique.values())}")
        for owner, storages in self._owned.items():
            own_bytes = sum(size for storage, size in storages.items() if self._users.get(storage) == [owner])
            if own_bytes != self.own_bytes(owner):
                note(f"{owner} alone uses {own_bytes} bytes, the ledger says {self.own_bytes(owner)}")
        for owner, now in measured.items():
            if self._owned.get(owner) != dict(now):
                note(f"the ledger is out of date for {owner}")


def _merged(parts: Iterable[Storages]) -> dict[Hashable, int]:
    return {storage: size for part in parts for storage, size in part.items()}
