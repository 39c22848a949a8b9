"""Adding changes of low rank to a weight on the host in blocks of rows, without a whole copy of it in another dtype.

A copy of a large weight in float32 costs more than the arithmetic: its memory comes fresh from the system each time, and neither it nor
the product fits a processor's cache. Here a few rows at a time are widened, changed and rounded in one buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comfy.patching.on_host.freed_memory import FreedMemory
from comfy.units import MIB
from comfy.weight_adapter import WeightAdapterBase

BLOCK_BYTES = 8 * MIB
FLOATS = {torch.float16, torch.bfloat16, torch.float32}  # narrower ones are rounded by chance


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """factor · (up [rows, rank] x down [rank, columns]), added to *kept* times the weight's rows from *first_row* on."""

    up: Tensor
    down: Tensor
    factor: float
    kept: float
    first_row: int

    def add_to(self, block: Tensor, row: int) -> None:
        """Change *block*, the weight's rows from *row* on, in place."""
        first, stop = max(row, self.first_row), min(row + len(block), self.first_row + len(self.up))
        if first >= stop:
            return
        target = block[first - row : stop - row]
        if self.kept != 1.0:
            target *= self.kept
        target.addmm_(self.up[first - self.first_row : stop - self.first_row], self.down, alpha=self.factor)


def in_row_blocks(
    patches: Sequence[Any], weight: Tensor, computed: torch.dtype, dtype: torch.dtype, freed: FreedMemory | None = None
) -> Tensor | None:
    """A new tensor: *weight* with *patches*, computed in *computed* and rounded to *dtype*; None unless all of them are such changes.

    *weight* [rows, …] is a contiguous tensor in host memory; *freed* may become the new one's. The arithmetic is that of
    ``comfy.lora.calculate_weight``; what that logs or refuses is left to it.
    """
    is_plain = weight.device.type == "cpu" and weight.ndim >= 2 and weight.is_contiguous() and weight.numel() > 0
    if not is_plain or not {weight.dtype, dtype} <= FLOATS:
        return None
    products = []
    for patch in patches:
        product = _product(patch, weight, computed)
        if product is None:
            return None
        products.append(product)
    reused = None if freed is None else freed.take(weight.shape, dtype)
    result = torch.empty(weight.shape, dtype=dtype) if reused is None else reused
    source, target = weight.view(len(weight), -1), result.view(len(weight), -1)
    rows = max(1, BLOCK_BYTES // (source.shape[1] * computed.itemsize))
    buffer = None if dtype == computed else torch.empty((min(rows, len(source)), source.shape[1]), dtype=computed)
    for row in range(0, len(source), rows):
        changed = target[row : row + rows]
        block = changed if buffer is None else buffer[: len(changed)]
        block.copy_(source[row : row + rows])
        for product in products:
            product.add_to(block, row)
        if block is not changed:
            changed.copy_(block)
    return result


def _product(patch: Any, weight: Tensor, dtype: torch.dtype) -> _Product | None:
    """What *patch* adds to *weight*, if it is the product of two matrices for (a slice of) its rows, and no function changes it."""
    strength, change, strength_model, part, function = patch
    if function is not None or not isinstance(change, WeightAdapterBase) or (part is not None and part[0] != 0):
        return None
    first_row = 0 if part is None else part[1]
    found = change.product(weight if part is None else weight.narrow(*part))
    if found is None:
        return None
    up, down, scale = found
    return _Product(up.to(weight.device, dtype), down.to(weight.device, dtype), strength * scale, strength_model, first_row)
