"""How wanted tensors of a file are cut into reads: large, in file order, whatever the sizes of the tensors.

A chunk is one range of the file whose bytes all go to one kind of place: straight into their tensors, several at a time, or through a
buffer that is cast. Boundaries lie on multiples of the chunk size in the file where the elements allow it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from comfy.weight_files.header import TensorEntry

MAX_SLICES = 512  # pieces of memory that one system call may fill; the limit of Linux is 1024


@dataclass(frozen=True, slots=True)
class Slice:
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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes *start* to *stop* of the file, which are *slices* in order; *cast* when their dtype changes on the way."""

    start: int
    stop: int
    slices: tuple[Slice, ...]
    cast: bool


def plan_chunks(wanted: Iterable[tuple[TensorEntry, bool]], chunk_bytes: int) -> list[Chunk]:
    """The reads for *wanted* ((entry, whether it is cast) in any order), in file order, none longer than *chunk_bytes*."""
    chunks: list[Chunk] = []
    slices: list[Slice] = []
    kind = False
    for entry, cast in sorted(wanted, key=lambda item: item[0].start):
        for piece in _cut(entry, chunk_bytes):
            if slices and (kind is not cast or not _continues(slices, piece, chunk_bytes)):
                chunks.append(_chunk(slices, kind))
                slices = []
            kind = cast
            slices.append(piece)
    return [*chunks, _chunk(slices, kind)] if slices else chunks


def _cut(entry: TensorEntry, chunk_bytes: int) -> Iterator[Slice]:
    """The tensor's elements, cut at or just before multiples of *chunk_bytes* in the file."""
    itemsize, first = entry.dtype.itemsize, 0
    while first < entry.elements:
        position = entry.start + first * itemsize
        to_boundary = (chunk_bytes - position % chunk_bytes) // itemsize
        stop = min(entry.elements, first + (to_boundary or chunk_bytes // itemsize))
        yield Slice(entry, first, stop)
        first = stop


def _continues(slices: list[Slice], piece: Slice, chunk_bytes: int) -> bool:
    """Whether *piece* follows *slices* in the file, in the same chunk, at an offset its dtype can be viewed at."""
    start = slices[0].start_byte
    return (
        piece.start_byte == slices[-1].stop_byte
        and start // chunk_bytes == (piece.stop_byte - 1) // chunk_bytes
        and len(slices) < MAX_SLICES
        and (piece.start_byte - start) % piece.entry.dtype.itemsize == 0
    )


def _chunk(slices: list[Slice], cast: bool) -> Chunk:
    return Chunk(slices[0].start_byte, slices[-1].stop_byte, tuple(slices), cast)
