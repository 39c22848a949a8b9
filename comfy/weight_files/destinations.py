"""Where tensors of a file go in the block that is read into, and how the disk writes them there itself.

A large tensor has pages of its own in the block (:mod:`comfy.weight_files.block_layout`). Reads past the page cache fill whole pages, in
which it lies as in its file, up to 63 bytes further on than where it belongs. Each piece is moved back once it is there, but for its
first bytes: they belong where the piece before may still be arriving. Those *seams* are put in place when everything has been read.
"""

from typing import NamedTuple

import numpy
import torch

from comfy.weight_files.chunks import Slice
from comfy.weight_files.direct_reads import BLOCK_BYTES

Seam = tuple[memoryview, bytes | bytearray]


class Destination(NamedTuple):
    """Where a tensor goes: *flat*, its elements in a row, the same memory as bytes, and where that begins in the block read into.

    *pages* is the whole block where the tensor has pages of its own there; the disk writes it into them *shift* bytes further on.
    """

    flat: torch.Tensor
    raw: memoryview
    offset: int
    pages: memoryview | None = None
    shift: int = 0

    def extent(self, first: int, stop: int) -> tuple[int, int]:
        """Where elements *first* to *stop* begin and end in the block."""
        return self.offset + first * self.flat.itemsize, self.offset + stop * self.flat.itemsize

    def pages_for(self, piece: Slice) -> memoryview | None:
        """The pages that the disk may fill with *piece*; None where it must go through a buffer."""
        if self.pages is None:
            return None
        begin, end = self.extent(piece.first, piece.stop)
        first, stop = begin + self.shift, end + self.shift
        return self.pages[first - first % BLOCK_BYTES : -(-stop // BLOCK_BYTES) * BLOCK_BYTES]

    def settle(self, piece: Slice, seams: list[Seam]) -> None:
        """Move *piece*, which the disk has written into its pages, to where it belongs; what must wait is added to *seams*."""
        if self.pages is None or self.shift == 0:
            return
        begin, end = self.extent(piece.first, piece.stop)
        waits = self._seam_bytes(piece)
        arrived = begin + self.shift
        if waits:
            seams.append((self.pages[begin : begin + waits], bytes(self.pages[arrived : arrived + waits])))
        block = numpy.frombuffer(self.pages, numpy.uint8)  # other threads run while it moves
        block[begin + waits : end] = block[arrived + waits : end + self.shift]

    def views_for(self, piece: Slice, seams: list[Seam]) -> list[memoryview]:
        """Where to read the bytes of *piece* to, one after the other; what must wait is to be read into *seams*."""
        first, stop = piece.first * self.flat.itemsize, piece.stop * self.flat.itemsize
        waits = self._seam_bytes(piece)
        if not waits:
            return [self.raw[first:stop]]
        seam = bytearray(waits)
        seams.append((self.raw[first : first + waits], seam))
        return [memoryview(seam), self.raw[first + waits : stop]]

    def _seam_bytes(self, piece: Slice) -> int:
        """How many bytes at the beginning of *piece* belong where the one before it arrives."""
        return min(self.shift, piece.stop_byte - piece.start_byte) if piece.first else 0
