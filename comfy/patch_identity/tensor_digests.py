"""Fingerprints of tensors by their contents, each state of a tensor read once.

Portable: torch and blake3.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from comfy.units import MIB

DIGEST_BYTES = 16
THREADED_BYTES = MIB
Place = tuple[Any, ...]


class NotFingerprintable(ValueError):
    """The value cannot be compared by content; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Witness:
    """A tensor that a fingerprint covers, as it was when it was read. Keeps the tensor's memory not alive.

    *version* is torch's counter of changes in place; None for a tensor made in inference mode, which has none.
    """

    tensor: weakref.ref[Tensor]
    version: int | None
    address: int
    digest: bytes

    def holds(self) -> bool:
        """Whether the tensor, if it still lives, is what it was; one without a counter is read again. May read it all."""
        tensor = self.tensor()
        if tensor is None:
            return True
        if tensor.data_ptr() != self.address:
            return False
        return content_digest(tensor) == self.digest if self.version is None else version_of(tensor) == self.version


def version_of(tensor: Tensor) -> int | None:
    """How often *tensor*'s memory was changed in place by torch; None for a tensor made in inference mode."""
    return None if tensor.is_inference() else tensor._version


def root_of(tensor: Tensor) -> Tensor:
    """The tensor that *tensor* is a view of, or itself. It lives as long as its views and shares their counter of changes."""
    return tensor._base if tensor._is_view() and tensor._base is not None else tensor


def check_plain(tensor: Tensor) -> None:
    """Raise :class:`NotFingerprintable` for a kind of tensor that does not hold its values plainly."""
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer) or tensor.layout != torch.strided or tensor.is_quantized:
        raise NotFingerprintable(f"a tensor of the kind {type(tensor).__name__}, {tensor.layout}, is not compared by its values")
    if tensor.is_meta:
        raise NotFingerprintable("a tensor without values (meta)")


def content_digest(tensor: Tensor) -> bytes:
    """A digest of dtype, shape and values of *tensor*, the same on every device. Reads all of it; a tensor of a device is copied first.

    Raises :class:`NotFingerprintable` for kinds of tensors that do not hold their values plainly.
    """
    check_plain(tensor)
    plain = tensor.detach().resolve_conj().resolve_neg()
    values: Any = plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    threads = blake3.AUTO if values.nbytes >= THREADED_BYTES else 1
    return blake3(head, max_threads=threads).update(values).digest(length=DIGEST_BYTES)


class TensorDigests:
    """Remembers digests for as long as the tensors live, and knows when one was changed in place. For the thread that runs nodes.

    Views of one tensor count as it: they share its counter of changes. ``read_bytes`` were read for digests so far.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], dict[Place, tuple[int, bytes]]]] = {}
        self.read_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def digest(self, tensor: Tensor) -> bytes:
        """The digest of *tensor*'s contents, read only if this state of it was not read before. Raises :class:`NotFingerprintable`."""
        check_plain(tensor)
        version = version_of(tensor)
        if version is None:
            return self._read(tensor)
        places = self._places(root_of(tensor))
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        known = places.get(place)
        if known is None or known[0] != version:
            for stale in [other for other, (seen, _) in places.items() if seen != version]:
                del places[stale]
            known = places[place] = version, self._read(tensor)
        return known[1]

    def witness(self, tensor: Tensor) -> Witness:
        """What tells later whether *tensor* is still what it is now. Raises :class:`NotFingerprintable`."""
        digest, version = self.digest(tensor), version_of(tensor)
        watched = tensor if version is None else root_of(tensor)
        return Witness(weakref.ref(watched), version, watched.data_ptr(), digest)

    def _read(self, tensor: Tensor) -> bytes:
        self.read_bytes += tensor.nbytes
        return content_digest(tensor)

    def _places(self, root: Tensor) -> dict[Place, tuple[int, bytes]]:
        known = self._known.get(id(root))
        if known is None or known[0]() is not root:
            known = self._known[id(root)] = weakref.ref(root, _forgetter(self._known, id(root))), {}
        return known[1]


def _forgetter(table: dict[int, Any], key: int) -> Callable[[Any], None]:
    """A callback for a weak reference under *key* of *table*: takes it out, unless another object has taken the place."""

    def forget(reference: Any) -> None:
        if table.get(key, (None,))[0] is reference:
            table.pop(key, None)

    return forget


class Tokens:
    """Numbers for objects that only equal themselves, for as long as they live; never given twice."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._next = 0

    def of(self, thing: Any) -> int:
        """The number of *thing*. Raises ``TypeError`` for objects that cannot be referred to weakly."""
        known = self._known.get(id(thing))
        if known is None or known[0]() is not thing:
            known = self._known[id(thing)] = weakref.ref(thing, _forgetter(self._known, id(thing))), self.fresh()
        return known[1]

    def fresh(self) -> int:
        """A number that no object has."""
        self._next += 1
        return self._next
