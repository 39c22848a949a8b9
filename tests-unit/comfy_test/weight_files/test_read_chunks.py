"""Cutting wanted tensors into reads."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.weight_files.chunks import MAX_SLICES, plan_chunks
from comfy.weight_files.header import TensorEntry

CHUNK = 1024


def entries(*sizes, start=100, dtype=torch.float16):
    """Tensors of *sizes* elements, one behind the other from byte *start*."""
    made = []
    for number, size in enumerate(sizes):
        made.append(TensorEntry(f"t{number}", dtype, (size,), start, start + size * dtype.itemsize))
        start = made[-1].stop
    return made


def test_neighbours_share_a_read_and_boundaries_are_multiples_of_the_chunk_size():
    chunks = plan_chunks([(entry, False) for entry in entries(10, 20, 1000, 30)], CHUNK)
    assert [(chunk.start, chunk.stop) for chunk in chunks] == [(100, 1024), (1024, 2048), (2048, 2220)]
    assert [[(piece.entry.key, piece.first, piece.stop) for piece in chunk.slices] for chunk in chunks] == [
        [("t0", 0, 10), ("t1", 0, 20), ("t2", 0, 432)],
        [("t2", 432, 944)],
        [("t2", 944, 1000), ("t3", 0, 30)],
    ]


def test_tensors_that_share_no_read_have_reads_of_their_own():
    chunks = plan_chunks([(entry, False) for entry in entries(10, 20, 1000, 30)], CHUNK, {"t1", "t2"})
    assert [(chunk.start, chunk.stop, len(chunk.slices)) for chunk in chunks] == [
        (100, 120, 1),
        (120, 160, 1),
        (160, 1024, 1),
        (1024, 2048, 1),
        (2048, 2160, 1),
        (2160, 2220, 1),
    ]


def test_gaps_and_changes_between_casting_and_not_end_a_read():
    one, two, three, four = entries(10, 10, 10, 10)
    chunks = plan_chunks([(four, True), (one, False), (three, False)], CHUNK)
    assert [(chunk.start, chunk.stop, chunk.cast) for chunk in chunks] == [(100, 120, False), (140, 160, False), (160, 180, True)]
    assert plan_chunks([(two, True), (one, True)], CHUNK)[0].stop == two.stop


def test_a_tensor_at_an_odd_place_starts_its_own_read():
    flags = TensorEntry("flags", torch.uint8, (3,), 100, 103)
    halves = TensorEntry("halves", torch.float16, (2000,), 103, 4103)
    chunks = plan_chunks([(flags, True), (halves, True)], CHUNK)
    assert chunks[0].slices == chunks[0].slices[:1] and chunks[1].start == 103
    assert chunks[1].stop == 1023, "no element is cut"
    assert sum(chunk.stop - chunk.start for chunk in chunks) == 4003 and all(chunk.stop - chunk.start <= CHUNK for chunk in chunks)


def test_empty_tensors_need_no_read():
    assert plan_chunks([(entry, False) for entry in entries(0, 0)], CHUNK) == [] == plan_chunks([], CHUNK)


def test_one_call_fills_a_limited_number_of_places():
    chunks = plan_chunks([(entry, False) for entry in entries(*[1] * (MAX_SLICES + 5), start=0)], 1 << 20)
    assert [len(chunk.slices) for chunk in chunks] == [MAX_SLICES, 5]


@given(choose=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_every_element_is_read_once_in_file_order(choose):
    made, position = [], choose.randrange(50)
    for number in range(60):
        dtype = choose.choice([torch.uint8, torch.float16, torch.float32, torch.float64])
        size = choose.choice([0, 1, 3, 50, 700])
        made.append(TensorEntry(str(number), dtype, (size,), position, position + size * dtype.itemsize))
        position = made[-1].stop
    wanted = [(entry, choose.random() < 0.3) for entry in made if choose.random() < 0.8]
    choose.shuffle(wanted)
    chunks = plan_chunks(wanted, CHUNK)
    assert all(before.stop <= after.start for before, after in zip(chunks, chunks[1:]))
    covered = {}
    for chunk in chunks:
        assert 0 < chunk.stop - chunk.start <= CHUNK
        assert chunk.slices[0].start_byte == chunk.start and chunk.slices[-1].stop_byte == chunk.stop
        assert all(before.stop_byte == after.start_byte for before, after in zip(chunk.slices, chunk.slices[1:]))
        for piece in chunk.slices:
            assert (piece.start_byte - chunk.start) % piece.entry.dtype.itemsize == 0
            assert piece.first == covered.get(piece.entry.key, 0)
            covered[piece.entry.key] = piece.stop
    assert covered == {entry.key: entry.elements for entry, _ in wanted if entry.elements}
