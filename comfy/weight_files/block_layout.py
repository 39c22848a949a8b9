"""Where the tensors of one read lie in the block of memory that they share.

Every tensor begins at a multiple of 64 bytes: how it lies within them changes the last bits of what layers compute with it. A large one
that keeps its file's dtype lies in pages of its own, at most 63 bytes before the spot where it would lie in them as in its file. So the
disk can write it there, past the page cache (:mod:`comfy.weight_files.direct_reads`); it then moves by these few bytes, which costs
hardly anything beside a copy out of a buffer. What is in the page cache is copied from there and lies otherwise. A block can be page-locked
in pieces that cut no tensor.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from comfy.units import MIB
from comfy.weight_files.header import TensorEntry

ALIGNMENT_BYTES = 64
PAGE_BYTES = 4096
OWN_PAGES_FROM_BYTES = MIB
APART_BYTES = PAGE_BYTES // 2  # copies between pages in which bytes lie nearly alike took 5 % longer (Xeon, 2.6 GHz)


class Place(NamedTuple):
    """Bytes *start* to *stop* of the block hold *entry* in *dtype*.

    *read_at* is where the block's pages take it from the disk: at the same distance from a page's beginning as in the file; None where
    it must go through a buffer.
    """

    entry: TensorEntry
    dtype: torch.dtype
    start: int
    stop: int
    read_at: int | None


def lay_out(entries: Iterable[TensorEntry], dtype: torch.dtype | None, by_disk: bool = True) -> tuple[list[Place], int]:
    """The place of each of *entries*, in their order, floating ones in *dtype* (None: the file's), and the block's size in bytes.

    Unless they may be written *by_disk*, large ones in the file's dtype lie half a page away from where they lie in its pages.
    """
    places, position = [], 0
    for entry in entries:
        kept = dtype if dtype is not None and entry.dtype.is_floating_point else entry.dtype
        size = entry.stop - entry.start if kept is entry.dtype else entry.elements * kept.itemsize
        if size < OWN_PAGES_FROM_BYTES:
            start = _rounded_up(position, ALIGNMENT_BYTES)
            places.append(Place(entry, kept, start, start + size, None))
            position = start + size
            continue
        start = _rounded_up(position, PAGE_BYTES)
        read_at = None
        if kept == entry.dtype and not by_disk:
            start += (entry.start + APART_BYTES) % PAGE_BYTES // ALIGNMENT_BYTES * ALIGNMENT_BYTES
        elif kept == entry.dtype and entry.start % kept.itemsize == 0:  # so that it can be cut at the beginning of a page
            read_at = start + entry.start % PAGE_BYTES
            start = read_at - entry.start % ALIGNMENT_BYTES
        places.append(Place(entry, kept, start, start + size, read_at))
        position = start + size if read_at is None else _rounded_up(read_at + size, PAGE_BYTES)
    return places, _rounded_up(position, ALIGNMENT_BYTES)


def _rounded_up(position: int, unit: int) -> int:
    return -(-position // unit) * unit
