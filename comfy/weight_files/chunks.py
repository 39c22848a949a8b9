"""How wanted tensors of a file are cut into reads: large, in file order, whatever the sizes of the tensors.

A chunk is one range of the file whose bytes all go to one kind of place: straight into their tensors, several at a time, or through a
buffer that is cast. Boundaries lie on multiples of the chunk size in the file where the elements allow it.
"""

import itertools
from collections.abc import Collection, Iterable
from typing import NamedTuple

from comfy.weight_files.header import TensorEntry

MAX_SLICES = 512  # pieces of memory that one system call may fill; the limit of Linux is 1024


class Slice(NamedTuple):
    """Elements *first* to *stop* of the tensor *entry*."""

    entry: TensorEntry
    first: int
    stop: int

    @property
    def start_byte(self) -> int:
        """Where the first of them lies in the file."""
        return self.entry.start + self.first * self.entry.dtype.itemsize

    @property
    def stop_byte(self) -> int:
        """Where the last of them ends."""
        return self.entry.start + self.stop * self.entry.dtype.itemsize


class Chunk(NamedTuple):
    """Bytes *start* to *stop* of the file, which are *slices* in order; *cast* when their dtype changes on the way."""

    start: int
    stop: int
    slices: tuple[Slice, ...]
    cast: bool


def plan_chunks(wanted: Iterable[tuple[TensorEntry, bool]], chunk_bytes: int, alone: Collection[str] = ()) -> list[Chunk]:
    """The reads for *wanted* ((entry, whether it is cast) in any order), in file order, none longer than *chunk_bytes*.

    Tensors whose keys are in *alone* share no read with others.
    """
    chunks: list[Chunk] = []
    slices: list[Slice] = []
    start = stop = 0  # of *slices*
    kind = was_alone = False
    for entry, cast in sorted(wanted, key=lambda item: item[0].start):
        itemsize, is_alone = entry.dtype.itemsize, entry.key in alone
        for first, last in _cuts(entry, itemsize, chunk_bytes):
            begins, ends = entry.start + first * itemsize, entry.start + last * itemsize
            continues = (
                bool(slices)
                and kind is cast
                and begins == stop
                and start // chunk_bytes == (ends - 1) // chunk_bytes
                and len(slices) < MAX_SLICES
                and not (is_alone or was_alone)
                and (begins - start) % itemsize == 0  # an offset that its dtype can be viewed at
            )
            if slices and not continues:
                chunks.append(Chunk(start, stop, tuple(slices), kind))
                slices = []
            if not slices:
                start = begins
            slices.append(Slice(entry, first, last))
            stop, kind, was_alone = ends, cast, is_alone
    return [*chunks, Chunk(start, stop, tuple(slices), kind)] if slices else chunks


def _cuts(entry: TensorEntry, itemsize: int, chunk_bytes: int) -> Iterable[tuple[int, int]]:
    """The tensor's elements, cut at or just before multiples of *chunk_bytes* in the file, as (first, stop)."""
    elements = entry.elements
    if entry.start // chunk_bytes == (entry.stop - 1) // chunk_bytes:
        return [(0, elements)] if elements else []
    cuts = [0]
    while cuts[-1] < elements:
        to_boundary = (chunk_bytes - (entry.start + cuts[-1] * itemsize) % chunk_bytes) // itemsize
        cuts.append(min(elements, cuts[-1] + (to_boundary or chunk_bytes // itemsize)))
    return itertools.pairwise(cuts)
