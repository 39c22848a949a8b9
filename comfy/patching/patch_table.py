"""Patches by weight name, shared between clones until one of them changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Patch = tuple[float, Any, float, Any, Any]  # strength, what, strength of the weight, (dim, start, length) or None, function or None


class PatchTable(dict[str, list[Patch]]):
    """Weight name to patches. A copy costs one pointer per name: lists are shared, and copied when one side asks for them.

    Node packs may change a list they got by ``[]``, ``get`` or ``setdefault``; the other side never sees it. Iterating over
    ``values()`` and ``items()`` gives shared lists, for reading only.
    """

    __slots__ = ("_own",)

    def __init__(self, patches: Mapping[str, list[Patch]] | Iterable[tuple[str, list[Patch]]] = ()) -> None:
        super().__init__(patches)
        self._own: set[str] | None = None

    def fork(self) -> PatchTable:
        """A table with the same patches that changes independently."""
        twin = PatchTable(self)
        twin._own = set()
        self._own = set()
        return twin

    def read(self, key: str) -> list[Patch]:
        """The patches of *key*, which the caller must not change."""
        return super().__getitem__(key)

    def __getitem__(self, key: str) -> list[Patch]:
        patches = super().__getitem__(key)
        if self._own is not None and key not in self._own:
            patches = list(patches)
            self[key] = patches
        return patches

    def __setitem__(self, key: str, patches: list[Patch]) -> None:
        super().__setitem__(key, patches)
        if self._own is not None:
            self._own.add(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The patches of *key*, or *default*."""
        if key not in self:
            return default
        return self[key]

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The patches of *key*, set to *default* if there are none."""
        if key not in self:
            self[key] = default
        return self[key]

    def add(self, key: str, patch: Patch) -> None:
        """Append *patch* to those of *key*."""
        add_patch(self, key, patch)


Patches = PatchTable | dict[str, list[Patch]]  # a node pack may have assigned a plain dict


def read_patches(table: Patches, key: str) -> list[Patch]:
    """The patches of *key* in *table*, which the caller must not change; empty if there are none."""
    if key not in table:
        return []
    return table.read(key) if isinstance(table, PatchTable) else table[key]


def add_patch(table: Patches, key: str, patch: Patch) -> None:
    """Append *patch* to those of *key* in *table*; the list that was there stays as it is."""
    table[key] = [*read_patches(table, key), patch]


def fork_table(table: Patches) -> PatchTable:
    """A table with the same patches that changes independently. Costs a pointer per name, for a plain dict a list per name."""
    return table.fork() if isinstance(table, PatchTable) else PatchTable({key: list(patches) for key, patches in table.items()})


def split_patch_key(key: str | tuple[Any, ...]) -> tuple[str, Any, Any]:
    """The weight name, the slice (dim, start, length) or None, and the function or None of a key given to ``add_patches``."""
    if isinstance(key, str):
        return key, None, None
    return key[0], key[1], key[2] if len(key) > 2 else None
