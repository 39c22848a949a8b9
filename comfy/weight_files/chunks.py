"""How wanted tensors of a file are cut into reads: large, in file order, whatever the sizes of the tensors.

A chunk is one range of the file whose bytes all go to one kind of place: straight into their tensors, several at a time, or through a
buffer that is cast. Boundaries lie on multiples of the chunk size in the file where the elements allow it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from comfy.weight_files.header import TensorEntry

MAX_PARTS = 512  # pieces of memory that one system call may fill; the limit of Linux is 1024


@dataclass(frozen=True, slots=True)
class Part:
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
    """Bytes *start* to *stop* of the file, which are *parts* in order; *cast* when their dtype changes on the way."""

    start: int
    stop: int
    parts: tuple[Part, ...]
    cast: bool


def plan_chunks(wanted: Iterable[tuple[TensorEntry, bool]], chunk_bytes: int) -> list[Chunk]:
    """The reads for *wanted* ((entry, whether it is cast) in any order), in file order, none longer than *chunk_bytes*."""
    chunks: list[Chunk] = []
    parts: list[Part] = []
    kind = False
    for entry, cast in sorted(wanted, key=lambda item: item[0].start):
        for part in _cut(entry, chunk_bytes):
            if parts and (kind is not cast or not _continues(parts, part, chunk_bytes)):
                chunks.append(_chunk(parts, kind))
                parts = []
            kind = cast
            parts.append(part)
    return [*chunks, _chunk(parts, kind)] if parts else chunks


def _cut(entry: TensorEntry, chunk_bytes: int) -> Iterator[Part]:
    """The tensor's elements, cut at or just before multiples of *chunk_bytes* in the file."""
    itemsize, first = entry.dtype.itemsize, 0
    while first < entry.elements:
        position = entry.start + first * itemsize
        to_boundary = (chunk_bytes - position % chunk_bytes) // itemsize
        stop = min(entry.elements, first + (to_boundary or chunk_bytes // itemsize))
        yield Part(entry, first, stop)
        first = stop


def _continues(parts: list[Part], part: Part, chunk_bytes: int) -> bool:
    """Whether *part* follows *parts* in the file, in the same chunk, at an offset its dtype can be viewed at."""
    start = parts[0].start_byte
    return (
        part.start_byte == parts[-1].stop_byte
        and start // chunk_bytes == (part.stop_byte - 1) // chunk_bytes
        and len(parts) < MAX_PARTS
        and (part.start_byte - start) % part.entry.dtype.itemsize == 0
    )


def _chunk(parts: list[Part], cast: bool) -> Chunk:
    return Chunk(parts[0].start_byte, parts[-1].stop_byte, tuple(parts), cast)
