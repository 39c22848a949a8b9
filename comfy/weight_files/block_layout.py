"""Where the tensors of one read lie in the block of memory that they share.

Every tensor begins at a multiple of 64 bytes: how it lies within them changes the last bits of what layers compute with it. A large one
that keeps its file's dtype, and begins at such a multiple there too, lies in pages of its own, and in them as in its file: at the same
distance from a page's beginning. So the disk can write it there, past the page cache, without a copy
(:mod:`comfy.weight_files.direct_reads`), and a block can be page-locked in pieces that cut no tensor.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from comfy.units import MIB
from comfy.weight_files.header import TensorEntry

ALIGNMENT_BYTES = 64
PAGE_BYTES = 4096
OWN_PAGES_FROM_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes *start* to *stop* of the block hold *entry* in *dtype*; *lies_as_in_file* where it may be read without a copy."""

    entry: TensorEntry
    dtype: torch.dtype
    start: int
    stop: int
    lies_as_in_file: bool


def lay_out(entries: Iterable[TensorEntry], dtype: torch.dtype | None) -> tuple[list[Place], int]:
    """The place of each of *entries*, in their order, floating ones in *dtype* (None: the file's), and the block's size in bytes."""
    places, position = [], 0
    for entry in entries:
        kept = dtype if dtype is not None and entry.dtype.is_floating_point else entry.dtype
        size = entry.elements * kept.itemsize
        if size < OWN_PAGES_FROM_BYTES:
            start = _rounded_up(position, ALIGNMENT_BYTES)
            places.append(Place(entry, kept, start, start + size, False))
            position = start + size
            continue
        lies_as_in_file = kept == entry.dtype and entry.start % ALIGNMENT_BYTES == 0
        start = _rounded_up(position, PAGE_BYTES) + (entry.start % PAGE_BYTES if lies_as_in_file else 0)
        places.append(Place(entry, kept, start, start + size, lies_as_in_file))
        position = _rounded_up(start + size, PAGE_BYTES) if lies_as_in_file else start + size
    return places, _rounded_up(position, ALIGNMENT_BYTES)


def _rounded_up(position: int, unit: int) -> int:
    return -(-position // unit) * unit
