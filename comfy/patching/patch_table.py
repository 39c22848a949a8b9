"""Patches by weight name, shared between clones until one of them changes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

Patch = tuple[float, Any, float, Any, Any]  # strength, what, strength of the weight, (dim, start, length) or None, function or None


class PatchTable(dict[str, list[Patch]]):
    """Weight name to patches. A clone costs nothing until one side changes; then a pointer per name: lists stay shared.

    Node packs may change a list they got from here in any way; the other side never sees it. Code of our own uses :meth:`read`,
    which hands no list out.
    """

    __slots__ = ("_handed_out", "_own", "_seen")

    def __init__(self, patches: Mapping[str, list[Patch]] | Iterable[tuple[str, list[Patch]]] = (), shares_lists: bool = False) -> None:
        super().__init__(patches)
        self._own: set[str] | None = set() if shares_lists else None
        self._handed_out: set[str] = set()
        self._seen: weakref.ref[SharedPatches] | None = None

    def share(self) -> SharedPatches:
        """These patches as they are now, for clones; takes the same time for any number of them."""
        shared = None if self._seen is None else self._seen()
        if shared is None or self._handed_out:
            shared = SharedPatches(self.fork() if self._handed_out else self)
            self._seen = None if self._handed_out else weakref.ref(shared)
            self._own = {key for key in self._handed_out if key in self}
        return shared

    def fork(self) -> PatchTable:
        """A table with the same patches that changes independently. Costs a pointer per name."""
        twin = PatchTable(self, shares_lists=True)
        for key in self._handed_out:
            if key in self:
                dict.__setitem__(twin, key, list(self.read(key)))
        self._own = {key for key in self._handed_out if key in self}
        return twin

    @property
    def may_change_unseen(self) -> bool:
        """Whether a list was handed out, which its new owner may change at any time."""
        return bool(self._handed_out)

    def read(self, key: str) -> list[Patch]:
        """The patches of *key*, which the caller must not change."""
        return super().__getitem__(key)

    def __getitem__(self, key: str) -> list[Patch]:
        patches = super().__getitem__(key)
        if self._own is not None and key not in self._own:
            patches = list(patches)
            self.put(key, patches)
        self._hand_out(key)
        return patches

    def __setitem__(self, key: str, patches: list[Patch]) -> None:
        self.put(key, patches)
        self._hand_out(key)  # whoever gave the list may keep it

    def put(self, key: str, patches: list[Patch]) -> None:
        """Set the patches of *key* to a list that nobody else keeps."""
        self._part()
        super().__setitem__(key, patches)
        self._handed_out.discard(key)
        if self._own is not None:
            self._own.add(key)

    def __delitem__(self, key: str) -> None:
        self._part()
        super().__delitem__(key)

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

    def pop(self, key: str, *default: Any) -> Any:
        """Take *key* out. Raises ``KeyError`` when it is not there and no default is given."""
        if key not in self:
            return super().pop(key, *default)
        patches = self[key]
        del self[key]
        return patches

    def popitem(self) -> tuple[str, list[Patch]]:
        """Take the last name out. Raises ``KeyError`` when there is none."""
        if not self:
            return super().popitem()
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Forget all patches."""
        self._part()
        super().clear()

    def update(self, *others: Any, **named: Any) -> None:
        """Set the lists of other tables here."""
        for key, patches in dict(*others, **named).items():
            self[key] = patches

    def __ior__(self, other: Any) -> PatchTable:  # type: ignore[override,misc]
        self.update(other)
        return self

    def values(self) -> Any:
        """The lists of all names, for the caller to keep."""
        return [self[key] for key in list(self)]

    def items(self) -> Any:
        """(name, list) of all names, the lists for the caller to keep."""
        return [(key, self[key]) for key in list(self)]

    def copy(self) -> Any:
        """A plain dict of the lists."""
        return dict(self.items())

    def add(self, key: str, patch: Patch) -> None:
        """Append *patch* to those of *key*."""
        add_patch(self, key, patch)

    def _hand_out(self, key: str) -> None:
        if key not in self._handed_out:
            self._part()
            self._handed_out.add(key)

    def _part(self) -> None:
        """Before a change: let clones that have seen these patches keep them as they are."""
        if self._seen is not None:
            shared, self._seen = self._seen(), None
            if shared is not None:
                shared.part()


class SharedPatches:
    """The patches of a table at one moment, for clones to read. They are the table's own until it changes."""

    __slots__ = ("__weakref__", "_table")

    def __init__(self, table: PatchTable) -> None:
        self._table = table

    def read(self) -> PatchTable:
        """The patches, for reading only."""
        return self._table

    def part(self) -> None:
        """Take a copy, because the table is about to change."""
        self._table = self._table.fork()


Patches = PatchTable | dict[str, list[Patch]]  # a node pack may have assigned a plain dict


def read_patches(table: Patches, key: str) -> list[Patch]:
    """The patches of *key* in *table*, which the caller must not change; empty if there are none."""
    if key not in table:
        return []
    return table.read(key) if isinstance(table, PatchTable) else table[key]


def add_patch(table: Patches, key: str, patch: Patch) -> None:
    """Append *patch* to those of *key* in *table*; a list that was shared stays as it is."""
    patches = [*read_patches(table, key), patch]
    if isinstance(table, PatchTable):
        table.put(key, patches)
    else:
        table[key] = patches


def fork_table(table: Patches) -> PatchTable:
    """A table with the same patches that changes independently. Costs a pointer per name, for a plain dict a list per name."""
    return table.fork() if isinstance(table, PatchTable) else PatchTable({key: list(patches) for key, patches in table.items()})


def split_patch_key(key: str | tuple[Any, ...]) -> tuple[str, Any, Any]:
    """The weight name, the slice (dim, start, length) or None, and the function or None of a key given to ``add_patches``."""
    if isinstance(key, str):
        return key, None, None
    return key[0], key[1], key[2] if len(key) > 2 else None
