"""Fingerprints of tensors by their contents, each state of a tensor read once.

Hashing has to keep up with memory. xxHash does, on one core, where the package ``xxhash`` is installed; else BLAKE3 takes all cores and
three to five times as long. Portable: torch and blake3.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import secrets
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from comfy.units import MIB

DIGEST_BYTES = 16
THREADED_BYTES = MIB
MAX_THREADS = 16
log = logging.getLogger(__name__)
Hash = Callable[[bytes, Any, int], bytes]
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
    """How often *tensor*'s memory was changed in place by torch; None for a tensor made in inference mode, or for one that was given the
    values of such a tensor (``module.to`` does so), which has no counter either.
    """
    try:
        return None if tensor.is_inference() else tensor._version
    except RuntimeError:
        return None


def root_of(tensor: Tensor) -> Tensor:
    """The tensor that *tensor* is a view of, or itself. It lives as long as its views and shares their counter of changes."""
    return tensor._base if tensor._is_view() and tensor._base is not None else tensor


def is_plain(tensor: Tensor) -> bool:
    """Whether *tensor* holds its values plainly, in memory."""
    is_known = type(tensor) in (Tensor, torch.nn.Parameter, torch.nn.Buffer)
    return is_known and tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def check_plain(tensor: Tensor) -> None:
    """Raise :class:`NotFingerprintable` for a kind of tensor that does not hold its values plainly."""
    if not is_plain(tensor) and not tensor.is_meta:
        raise NotFingerprintable(f"a tensor of the kind {type(tensor).__name__}, {tensor.layout}, is not compared by its values")
    if tensor.is_meta:
        raise NotFingerprintable("a tensor without values (meta)")


def content_digest(tensor: Tensor) -> bytes:
    """A digest of dtype, shape and values of *tensor*, the same on every device. Reads all of it; a tensor of a device is copied first.

    Raises :class:`NotFingerprintable` for kinds of tensors that do not hold their values plainly.
    """
    check_plain(tensor)
    head = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    plain = tensor.detach()
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        plain = plain.resolve_conj().resolve_neg().cpu().contiguous()
    values = memoryview((ctypes.c_char * plain.nbytes).from_address(plain.data_ptr())).cast("B") if plain.nbytes else b""
    return _hash()(head, values, plain.nbytes)


@functools.cache
def _hash() -> Hash:
    """Makes a digest of a head and values of so many bytes; the same function for the whole process, whose digests are its own."""
    try:
        from xxhash import xxh3_128
    except ImportError:
        log.info("fingerprints of tensors are taken by BLAKE3; `pip install xxhash` makes them several times as fast")
        return blake3_digest
    seed = secrets.randbits(64)  # unknown to whoever makes files, so that no two can be made to collide

    def digest(head: bytes, values: Any, size_bytes: int) -> bytes:
        running = xxh3_128(head, seed=seed)
        running.update(values)
        found: bytes = running.digest()
        return found

    return digest


def blake3_digest(head: bytes, values: Any, size_bytes: int) -> bytes:
    """BLAKE3 of *head* and *values*, which are *size_bytes*; many of them on all cores."""
    threads = blake3.AUTO if size_bytes >= 16 * THREADED_BYTES else 1
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
        found = self._known_digest(tensor)
        if found is None:
            self.read_bytes += tensor.nbytes
            found = content_digest(tensor)
            self._note(tensor, found)
        return found

    def read_ahead(self, tensors: Iterable[Tensor]) -> None:
        """Read those of *tensors* that are not known, on several threads, so that :meth:`digest` finds them. Others are left alone."""
        missing = [
            tensor for tensor in tensors if is_plain(tensor) and version_of(tensor) is not None and self._known_digest(tensor) is None
        ]
        threads = min(MAX_THREADS, os.cpu_count() or 1, sum(tensor.nbytes for tensor in missing) // THREADED_BYTES)
        if threads < 2 or len(missing) < 2:
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="fingerprints") as pool:
            for tensor, found in zip(missing, pool.map(content_digest, missing), strict=True):
                self.read_bytes += tensor.nbytes
                self._note(tensor, found)

    def _known_digest(self, tensor: Tensor) -> bytes | None:
        version = version_of(tensor)
        known = None if version is None else self._places(root_of(tensor)).get(_place(tensor))
        return None if known is None or known[0] != version else known[1]

    def _note(self, tensor: Tensor, digest: bytes) -> None:
        version = version_of(tensor)
        if version is None:
            return
        places = self._places(root_of(tensor))
        for stale in [place for place, (seen, _) in places.items() if seen != version]:
            del places[stale]
        places[_place(tensor)] = version, digest

    def witness(self, tensor: Tensor) -> Witness:
        """What tells later whether *tensor* is still what it is now. Raises :class:`NotFingerprintable`."""
        digest, version = self.digest(tensor), version_of(tensor)
        watched = tensor if version is None else root_of(tensor)
        return Witness(weakref.ref(watched), version, watched.data_ptr(), digest)

    def _places(self, root: Tensor) -> dict[Place, tuple[int, bytes]]:
        known = self._known.get(id(root))
        if known is None or known[0]() is not root:
            known = self._known[id(root)] = weakref.ref(root, _forgetter(self._known, id(root))), {}
        return known[1]


def _place(tensor: Tensor) -> Place:
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


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
