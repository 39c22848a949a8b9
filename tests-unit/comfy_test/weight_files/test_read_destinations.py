"""Pieces that the disk writes into whole pages end up where they belong, whatever their lengths and in whatever order."""

import random

import numpy
import pytest
import torch

from comfy.weight_files.block_layout import lay_out
from comfy.weight_files.chunks import Slice, plan_chunks
from comfy.weight_files.destinations import Destination
from comfy.weight_files.header import TensorEntry

PAGE = 4096


def destination_of(entry):
    """Where *entry* is to go in a block of its own, which holds other bytes first."""
    (place,), size = lay_out([entry], None)
    block = torch.full((size + PAGE,), 170, dtype=torch.uint8)
    view = block.numpy().data
    flat = block[place.start : place.stop].view(entry.dtype)
    return Destination(flat, view[place.start : place.stop], place.start, view, place.read_at - place.start)


def write_as_disk(place, piece, content):
    """Fill the pages of *piece* as a read past the cache does: whole pages of the file *content*."""
    first = piece.start_byte - piece.start_byte % PAGE
    pages = place.pages_for(piece)
    found = content[first : first + len(pages)]
    pages[: len(found)] = found


@pytest.mark.parametrize("seed", range(40))
def test_a_tensor_is_its_files_in_whatever_order_its_pieces_come(seed):
    choose = random.Random(seed)
    start, tail = choose.randrange(0, 3 * PAGE, 2), choose.choice([0, 2, 30, 62, 64, 66, PAGE - 2])
    stop = start + 2**20 + (-(start + 2**20) % PAGE) + tail  # the last piece has *tail* bytes, fewer than the shift at times
    entry = TensorEntry("weight", torch.float16, ((stop - start) // 2,), start, stop)
    content = memoryview(numpy.random.default_rng(seed).integers(0, 255, stop + PAGE, dtype=numpy.uint8).data)
    place, seams = destination_of(entry), []
    pieces = [piece for chunk in plan_chunks([(entry, False)], choose.choice([1, 2, 5]) * PAGE) for piece in chunk.slices]
    arrived = []
    for piece in choose.sample(pieces, len(pieces)):
        if choose.random() < 0.5:
            write_as_disk(place, piece, content)
            arrived.append(piece)  # moved at some later time
        else:
            position = piece.start_byte
            for view in place.views_for(piece, seams):
                view[:] = content[position : position + len(view)]
                position += len(view)
            assert position == piece.stop_byte
        while arrived and choose.random() < 0.4:
            place.settle(arrived.pop(choose.randrange(len(arrived))), seams)
    for piece in arrived:
        place.settle(piece, seams)
    for target, found in seams:
        target[:] = found
    assert bytes(place.raw) == bytes(content[start:stop])


def test_a_tensor_without_pages_of_its_own_goes_through_a_buffer():
    entry = TensorEntry("bias", torch.float32, (4,), 64, 80)
    memory = bytearray(16)
    place, seams = Destination(torch.frombuffer(memory, dtype=torch.float32), memoryview(memory), 0), []
    piece = Slice(entry, 1, 4)
    assert place.pages_for(piece) is None
    (view,) = place.views_for(piece, seams)
    view[:] = numpy.arange(3, dtype=numpy.float32).tobytes()
    place.settle(piece, seams)
    assert place.flat.tolist() == [0, 0, 1, 2] and not seams and place.extent(1, 4) == (4, 16)
