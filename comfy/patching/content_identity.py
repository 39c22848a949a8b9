"""What makes two patchers of a module load the same weights: the contents of their patches, not the objects.

Every patch counts by its kind, strengths, slice, tensors and function, in the order in which the patches of a weight are applied. What
cannot be compared by content equals only itself.
"""

from __future__ import annotations

import hashlib
import operator
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast, overload

from comfy.patch_identity.fingerprints import Fingerprint, fingerprints
from comfy.patch_identity.tensor_digests import DIGEST_BYTES
from comfy.patching.added_patch import patch_fingerprint, unread_tensors
from comfy.patching.forwarding import forwards_to
from comfy.patching.patch_table import Patches, PatchTable, read_patches
from comfy.patching.protocols import Patcher
from comfy.patching.weight_patches import WeightPatches
from comfy.patching.weight_values import WeightValues

_weight_patches: Callable[[object], WeightPatches] = operator.attrgetter("_weight_patches")


def table_digest(table: Patches) -> bytes:
    """A digest of the patches of all weights; remembered by *table* until it or a tensor in it changes."""
    noted: Fingerprint | None = table.noted if isinstance(table, PatchTable) else None
    if noted is not None and noted.is_current():
        return noted.digest
    fingerprints().tensors.read_ahead(tensor for key in table for patch in read_patches(table, key) for tensor in unread_tensors(patch))
    parts, witnesses, is_lasting = [], [], True
    for key in sorted(table):
        found = [patch_fingerprint(patch) for patch in read_patches(table, key)]
        parts.append(key.encode() + b"=" + _digest(one.digest for one in found))
        witnesses += [witness for one in found for witness in one.witnesses]
        is_lasting = is_lasting and all(one.is_lasting and not one.reason for one in found)
    digest = _digest(parts)
    if isinstance(table, PatchTable) and is_lasting and not table.may_change_unseen:
        table.noted = Fingerprint(digest, "", tuple(witnesses))
    return digest


class ContentIdentity:
    """The identities of what *patcher* makes of its module's weights. Made for one operation."""

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher
        self._patches = _weight_patches(patcher)
        self._table = self._patches.read()
        given = self._patches.given_uuid
        self._given = b"" if given is None else repr(given).encode()

    def of_weight(self, key: str) -> bytes | None:
        """Of the patches of *key*; None when it has none."""
        return self._given + self._list_digest(key) if key in self._table else None

    def _list_digest(self, key: str) -> bytes:
        return _digest(patch_fingerprint(patch).digest for patch in read_patches(self._table, key))

    def of_all(self) -> uuid.UUID:
        """Of everything that decides what a load does: patches, functions on weights, hooks, casts and the base."""
        if self._patches.given_uuid is not None:
            return self._patches.given_uuid
        parts = [self._patcher.clone_base_uuid.bytes, table_digest(self._table), _digest(self._extras())]
        found = uuid.UUID(bytes=_digest(parts))
        if found != self._patches.last_uuid:
            self._patches.last_uuid = found
        return self._patches.last_uuid or found

    def reasons(self) -> list[str]:
        """Why patches equal only themselves, each reason once; empty when all are compared by content."""
        found = (patch_fingerprint(patch).reason for key in self._table for patch in read_patches(self._table, key))
        return list(dict.fromkeys(reason for reason in found if reason))

    def _extras(self) -> Iterator[bytes]:
        yield b"cast" if self._patches.force_cast_weights else b""
        for key in sorted(self._patches.weight_wrapper_patches):
            yield key.encode()
            yield from (_of_itself(function) for function in self._patches.weight_wrapper_patches[key])
        for reference, table in self._patcher.hook_patches.items():
            yield _of_itself(reference)
            yield table_digest(table)
        computing: list[tuple[Any, Any]] = [
            (self._patcher.calculate_weight, WeightValues.calculate),
            (self._patcher.patch_weight_to_device, WeightValues.patch_to_device),
        ]
        for bound, own in computing:
            if not forwards_to(bound, own):
                yield _of_itself(getattr(bound, "__func__", bound))


class PatchesUUID:
    """``patches_uuid``: the identity of what a patcher would load. Assigning one makes it known by that until its patches change."""

    @overload
    def __get__(self, patcher: None, owner: type) -> PatchesUUID: ...

    @overload
    def __get__(self, patcher: object, owner: type) -> uuid.UUID: ...

    def __get__(self, patcher: object | None, owner: type) -> PatchesUUID | uuid.UUID:
        return self if patcher is None else ContentIdentity(cast(Patcher, patcher)).of_all()

    def __set__(self, patcher: object, given: uuid.UUID) -> None:
        _weight_patches(patcher).given_uuid = given


def _of_itself(thing: object) -> bytes:
    """By content, or as the object that it is."""
    found = fingerprints().of(thing)
    if not found.reason:
        return found.digest
    try:
        return b"object" + str(fingerprints().tokens.of(thing)).encode()
    except TypeError:
        return found.digest


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()
