"""Notices when somebody changed the weights of a cached model for good: checksums of what was loaded, compared later.

Patches are undone before the comparison. What is left is code that changes a module it was handed as if it were its own (``.half()``,
merging weights in place): such a model must not be handed out again. Portable: needs torch.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import torch

SAMPLE_BYTES = 4096
Weights = Iterable[tuple[str, torch.Tensor | None]]


class HasModule(Protocol):
    """A patcher, of which only the module matters here."""

    @property
    def model(self) -> Any: ...


Checked = TypeVar("Checked", bound=HasModule)


class WeightsChanged(RuntimeError):
    """Weights that nothing may write to are not what was loaded; the text names the first."""


class WeightChecksums(Generic[Checked]):
    """Checksums by module, gone with it. Some 10 microseconds per tensor; used by one thread at a time per module.

    *weights_of* gives a patcher's weights by name as they are without patches, and None for one that cannot be looked at where it is now.
    """

    def __init__(self, weights_of: Callable[[Checked], Weights]) -> None:
        self._weights_of = weights_of
        self._sums: weakref.WeakKeyDictionary[Any, dict[str, bytes | None]] = weakref.WeakKeyDictionary()

    def note(self, patcher: Checked) -> None:
        """Remember the weights of *patcher*'s module, which has just been loaded."""
        self._sums[patcher.model] = self._checksums(patcher)

    def knows(self, patcher: Checked) -> bool:
        """Whether something was noted of *patcher*'s module."""
        return patcher.model in self._sums

    def check(self, patcher: Checked) -> None:
        """Raise :class:`WeightsChanged` when a weight differs from what was noted, came or went; modules never noted pass."""
        noted = self._sums.get(patcher.model)
        if noted is None:
            return
        found = self._checksums(patcher)
        changed = sorted(name for name in noted.keys() | found.keys() if _differ(noted.get(name, b""), found.get(name, b"")))
        if changed:
            raise WeightsChanged(
                f"{len(changed)} of {len(noted)} weights of a {type(patcher.model).__name__} are not what was "
                f"loaded, first {changed[0]}; a node pack has written to weights in place"
            )

    def _checksums(self, patcher: Checked) -> dict[str, bytes | None]:
        return {name: None if tensor is None else checksum(tensor) for name, tensor in self._weights_of(patcher)}


def _differ(noted: bytes | None, found: bytes | None) -> bool:
    return noted is not None and found is not None and noted != found


def checksum(tensor: torch.Tensor) -> bytes:
    """A digest of shape, dtype and both ends (4 KiB each) of *tensor*; of one that is not contiguous, of the ends of its last row.

    Of a tensor that is made of others (a quantised weight), a digest of theirs.
    """
    if hasattr(type(tensor), "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
        return hashlib.blake2b(b"".join(checksum(getattr(tensor, name)) for name in names), digest_size=16).digest()
    row = tensor.detach()
    while row.ndim > 1 and not row.is_contiguous():
        row = row[-1]
    flat = row.reshape(-1)
    count = max(1, SAMPLE_BYTES // max(1, tensor.element_size()))
    digest = hashlib.blake2b(str((tuple(tensor.shape), tensor.dtype)).encode(), digest_size=16)
    for piece in (flat[:count], flat[max(count, len(flat) - count) :]):
        if piece.numel():
            digest.update(piece.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
