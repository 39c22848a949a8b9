"""Where tensors lie in the block that they are read into."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.weight_files.block_layout import ALIGNMENT_BYTES, OWN_PAGES_FROM_BYTES, PAGE_BYTES, lay_out
from comfy.weight_files.header import TensorEntry

DTYPES = [torch.uint8, torch.float16, torch.float32, torch.float64]


def entry(name, dtype, elements, start):
    return TensorEntry(name, dtype, (elements,), start, start + elements * dtype.itemsize)


def test_a_large_tensor_lies_in_its_pages_as_in_its_file():
    large = entry("large", torch.float16, OWN_PAGES_FROM_BYTES, 3 * PAGE_BYTES + 192)
    small = entry("small", torch.float16, 9, large.stop)
    (first, second, third), size = lay_out([small, large, small], None)
    assert (first.start, first.stop, first.lies_as_in_file) == (0, 18, False)
    assert (second.start, second.lies_as_in_file) == (PAGE_BYTES + 192, True)
    assert third.start == second.stop - second.stop % PAGE_BYTES + PAGE_BYTES and size == third.start + ALIGNMENT_BYTES


def test_only_tensors_that_are_read_as_whole_pages_keep_others_off_their_last_one():
    cast, small = entry("cast", torch.float16, OWN_PAGES_FROM_BYTES, 192), entry("small", torch.float16, 9, 0)
    first, second = lay_out([cast, small], torch.float32)[0]
    assert first.stop % PAGE_BYTES == 0 and second.start == first.stop
    odd = entry("odd", torch.float32, OWN_PAGES_FROM_BYTES + 5, 168)
    first, second = lay_out([odd, small], None)[0]
    assert first.stop <= second.start < first.stop + ALIGNMENT_BYTES


def test_what_is_cast_or_not_aligned_in_its_file_is_aligned_instead():
    cast = entry("cast", torch.float16, OWN_PAGES_FROM_BYTES, 192)
    odd = entry("odd", torch.float32, OWN_PAGES_FROM_BYTES, 168)
    for place in lay_out([cast, odd], torch.float32)[0]:
        assert place.start % PAGE_BYTES == 0 and not place.lies_as_in_file and place.dtype == torch.float32


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
    places, size = lay_out(entries, dtype)
    assert [place.entry for place in places] == entries
    assert places[-1].stop <= size <= sum(place.stop - place.start + (2 * PAGE_BYTES) for place in places)
    for before, after in zip(places, places[1:]):
        assert before.stop <= after.start
        if before.lies_as_in_file or after.lies_as_in_file:
            assert -(-before.stop // PAGE_BYTES) <= after.start // PAGE_BYTES
    for place in places:
        assert place.start % ALIGNMENT_BYTES == 0 and place.stop - place.start == place.entry.elements * place.dtype.itemsize
        if place.lies_as_in_file:
            assert place.start % PAGE_BYTES == place.entry.start % PAGE_BYTES and place.dtype == place.entry.dtype
