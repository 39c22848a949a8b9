"""Adding changes of low rank to a weight on the host in blocks of rows, without a whole copy of it in another dtype.

A copy of a large weight in float32 costs more than the arithmetic: its memory comes fresh from the system each time, and neither it nor
the product fits a processor's cache. Here a few rows at a time are widened, changed and rounded in one buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from comfy.patching.on_host.filling import AT_ONCE, OnHost
from comfy.units import MIB
from comfy.weight_adapter import WeightAdapterBase

BLOCK_BYTES = 8 * MIB  # that torch's threads share
OWN_BLOCK_BYTES = MIB // 2  # of one thread: its core's cache holds as much, and what becomes of it
BLOCKS_AT_ONCE = 64  # for which factors are made wider
FLOATS = {torch.float16, torch.bfloat16, torch.float32}  # narrower ones are rounded by chance

Part = tuple[slice, Tensor]  # rows of a block, and those of the first factor that belong to them


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """factor · (up [rows, rank] x down [rank, columns]), added to *kept* times the weight's rows from *first_row* on."""

    up: Tensor
    down: Tensor
    factor: float
    kept: float
    first_row: int

    def for_rows(self, some: range, dtype: torch.dtype) -> _Product:
        """The same in *dtype*, for the weight's rows *some* alone."""
        first = max(some.start, self.first_row)
        up = self.up[first - self.first_row : max(first, some.stop) - self.first_row]
        return replace(self, up=up.to(dtype), down=self.down.to(dtype), first_row=first)

    def in_blocks(self, some: range, rows: int) -> Iterator[Part | None]:
        """What it adds to each block of *rows* of the weight's rows *some*, in turn; None for those that stay as they are."""
        if self.first_row == some.start and len(self.up) == len(some):
            return zip(itertools.repeat(slice(None)), self.up.split(rows))
        return (self._in_block(row, min(row + rows, some.stop)) for row in some[::rows])

    def _in_block(self, row: int, end: int) -> Part | None:
        first, stop = max(row, self.first_row), min(end, self.first_row + len(self.up))
        return (slice(first - row, stop - row), self.up[first - self.first_row : stop - self.first_row]) if first < stop else None

    def add_to(self, block: Tensor, part: Part) -> None:
        """Change rows of *block* in place."""
        where, up = part
        target = block[where]
        if self.kept != 1.0:
            target *= self.kept
        target.addmm_(up, self.down, alpha=self.factor)


def in_row_blocks(
    patches: Sequence[Any], weight: Tensor, computed: torch.dtype, dtype: torch.dtype, on_host: OnHost = AT_ONCE
) -> Tensor | None:
    """A new tensor: *weight* with *patches*, computed in *computed* and rounded to *dtype*; None unless all of them are such changes.

    *weight* [rows, …] is a contiguous tensor in host memory; ``on_host.freed`` may become the new one's, and with ``on_host.filling`` its
    values come by the end of that. The arithmetic is that of ``comfy.lora.calculate_weight``; what that logs or refuses is left to it.
    """
    is_plain = weight.device.type == "cpu" and weight.ndim >= 2 and weight.is_contiguous() and weight.numel() > 0
    if not is_plain or not {weight.dtype, dtype} <= FLOATS:
        return None
    products = []
    for patch in patches:
        product = _product(patch, weight)
        if product is None:
            return None
        products.append(product)
    reused = None if on_host.freed is None else on_host.freed.take(weight.shape, dtype)
    result = torch.empty(weight.shape, dtype=dtype) if reused is None else reused
    source, target = weight.view(len(weight), -1), result.view(len(weight), -1)
    row_bytes, filling = source.shape[1] * computed.itemsize, on_host.filling
    if filling is None or not filling.is_worth_it:
        _fill(target, source, products, computed, max(1, BLOCK_BYTES // row_bytes), range(len(source)))
        return result
    rows = max(1, OWN_BLOCK_BYTES // row_bytes)
    for row in range(0, len(source), BLOCKS_AT_ONCE * rows):
        some = range(row, min(len(source), row + BLOCKS_AT_ONCE * rows))
        filling.add(_fill, target, source, products, computed, rows, some)
    return result


def _fill(target: Tensor, source: Tensor, products: Sequence[_Product], computed: torch.dtype, rows: int, some: range) -> None:
    """Write *source* with *products* to *target* (both [rows, columns]): the rows *some*, of which *rows* at a time."""
    buffer = None if target.dtype == computed else torch.empty((min(rows, len(some)), source.shape[1]), dtype=computed)
    products = [product.for_rows(some, computed) for product in products]
    blocks = (whole[some.start : some.stop].split(rows) for whole in (target, source))
    for changed, original, *parts in zip(*blocks, *(product.in_blocks(some, rows) for product in products), strict=True):
        if buffer is not None and len(buffer) > len(changed):  # the last block
            buffer = buffer[: len(changed)]
        block = changed if buffer is None else buffer
        block.copy_(original)
        for product, part in zip(products, parts):
            if part is not None:
                product.add_to(block, part)
        if block is not changed:
            changed.copy_(block)


def _product(patch: Any, weight: Tensor) -> _Product | None:
    """What *patch* adds to *weight*, if it is the product of two matrices for (a slice of) its rows, and no function changes it."""
    strength, change, strength_model, part, function = patch
    if function is not None or not isinstance(change, WeightAdapterBase) or (part is not None and part[0] != 0):
        return None
    first_row = 0 if part is None else part[1]
    found = change.product(weight if part is None else weight.narrow(*part))
    if found is None:
        return None
    up, down, scale = found
    return _Product(up.to(weight.device), down.to(weight.device), strength * scale, strength_model, first_row)
