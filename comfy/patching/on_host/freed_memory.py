"""Memory of a patched value that was just taken out, for the one that takes its place.

Fresh memory costs more than the arithmetic that fills it. What nobody looks into any more can be filled again, and whether that is so is
asked of torch: a view, a NumPy array, a saved copy of the parameter each keep the storage in use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_use_count = getattr(torch._C, "_storage_Use_Count", None)


class FreedMemory:
    """The memory behind *value*, which its holder is about to let go."""

    def __init__(self, value: Tensor) -> None:
        self._storage = value.untyped_storage() if value.device.type == "cpu" else None

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """A contiguous tensor in all of the memory, which holds anything; None if anything else looks into it or its size is another."""
        storage, self._storage = self._storage, None
        size_bytes = dtype.itemsize * torch.Size(shape).numel()
        if storage is None or _use_count is None or storage.nbytes() != size_bytes or not storage.resizable():
            return None
        if storage.is_shared() or _use_count(storage._cdata) != 1:  # the one is *storage* itself
            return None
        return torch.empty(0, dtype=dtype).set_(storage, 0, torch.Size(shape), _contiguous_strides(shape))


def _contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
