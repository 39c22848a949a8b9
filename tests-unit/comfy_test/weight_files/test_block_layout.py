"""Where tensors lie in the block that they are read into."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.weight_files.block_layout import ALIGNMENT_BYTES, OWN_PAGES_FROM_BYTES, PAGE_BYTES, lay_out
from comfy.weight_files.header import TensorEntry

DTYPES = [torch.uint8, torch.float16, torch.float32, torch.float64]


def entry(name, dtype, elements, start):
    return TensorEntry(name, dtype, (elements,), start, start + elements * dtype.itemsize)


def test_the_disk_writes_a_large_tensor_into_pages_of_its_own_and_it_ends_up_aligned():
    large = entry("large", torch.float16, OWN_PAGES_FROM_BYTES, 3 * PAGE_BYTES + 200)
    small = entry("small", torch.float16, 9, large.stop)
    (first, second, third), size = lay_out([small, large, small], None)
    assert (first.start, first.stop, first.read_at) == (0, 18, None)
    assert (second.start, second.read_at) == (PAGE_BYTES + 192, PAGE_BYTES + 200)
    assert third.start == second.stop - second.stop % PAGE_BYTES + PAGE_BYTES and size == third.start + ALIGNMENT_BYTES


def test_only_tensors_that_are_read_as_whole_pages_keep_others_off_their_last_one():
    cast, small = entry("cast", torch.float16, OWN_PAGES_FROM_BYTES, 192), entry("small", torch.float16, 9, 0)
    first, second = lay_out([cast, small], torch.float32)[0]
    assert first.stop % PAGE_BYTES == 0 and second.start == first.stop
    odd = entry("odd", torch.float32, OWN_PAGES_FROM_BYTES + 5, 166)
    first, second = lay_out([odd, small], None)[0]
    assert first.stop <= second.start < first.stop + ALIGNMENT_BYTES


def test_what_the_disk_writes_beyond_the_tensor_is_in_a_page_of_its_own_too():
    long = entry("long", torch.uint8, 2 * PAGE_BYTES + OWN_PAGES_FROM_BYTES, PAGE_BYTES + 63)  # ends at a page's end but for the shift
    small = entry("small", torch.uint8, 1, 0)
    first, second = lay_out([long, small], None)[0]
    assert first.stop % PAGE_BYTES == 0 and first.read_at == first.start + 63
    assert second.start == first.stop + PAGE_BYTES


def test_what_is_cast_or_lies_across_elements_in_its_file_goes_through_a_buffer():
    cast = entry("cast", torch.float16, OWN_PAGES_FROM_BYTES, 192)
    odd = entry("odd", torch.float32, OWN_PAGES_FROM_BYTES, 166)
    for place in lay_out([cast, odd], torch.float32)[0]:
        assert place.start % PAGE_BYTES == 0 and place.read_at is None and place.dtype == torch.float32


def test_what_is_copied_lies_half_a_page_away_from_where_it_lies_in_its_file():
    entries = [
        entry(str(start), torch.float16, OWN_PAGES_FROM_BYTES, start) for start in (0, 200, 2048, PAGE_BYTES - 2, 5 * PAGE_BYTES + 100)
    ]
    for place in lay_out(entries, None, by_disk=False)[0]:
        apart = (place.start - place.entry.start) % PAGE_BYTES
        assert PAGE_BYTES // 2 - ALIGNMENT_BYTES < apart <= PAGE_BYTES // 2 and place.read_at is None


@given(choose=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_tensors_do_not_overlap_and_pages_of_large_ones_hold_nothing_else(choose):
    entries, position = [], choose.choice([0, 8, 64, 192, 4096, 8328])
    for number in range(30):
        size = choose.choice(
            [0, 64, 640, 5056, OWN_PAGES_FROM_BYTES // 2, OWN_PAGES_FROM_BYTES, OWN_PAGES_FROM_BYTES + 3, 3 * OWN_PAGES_FROM_BYTES]
        )
        entries.append(entry(str(number), choose.choice(DTYPES), size, position))
        position = entries[-1].stop
    choose.shuffle(entries)
    dtype = choose.choice([None, torch.float16, torch.float32])
    places, size = lay_out(entries, dtype, choose.random() < 0.5)
    assert [place.entry for place in places] == entries
    assert places[-1].stop <= size <= sum(place.stop - place.start + (2 * PAGE_BYTES) for place in places)
    for before, after in zip(places, places[1:]):
        assert before.stop <= after.start
        if before.read_at is not None or after.read_at is not None:
            assert -(-_read_to(before) // PAGE_BYTES) <= after.start // PAGE_BYTES
    for place in places:
        assert place.start % ALIGNMENT_BYTES == 0 and place.stop - place.start == place.entry.elements * place.dtype.itemsize
        if place.read_at is not None:
            assert place.read_at % PAGE_BYTES == place.entry.start % PAGE_BYTES and place.dtype == place.entry.dtype
            assert 0 <= place.read_at - place.start < ALIGNMENT_BYTES and place.start % PAGE_BYTES <= place.read_at % PAGE_BYTES


def _read_to(place):
    """Where the last byte that the disk writes for it ends."""
    return place.stop if place.read_at is None else place.read_at + place.stop - place.start
