"""Memory for weights: what is asked of the system, and that the faster page size is taken."""

import gc
import mmap
import sys
import threading
import weakref

import psutil
import pytest
import torch

from comfy import fresh_memory
from comfy.fresh_memory import FIRST_PAUSE, HUGE_PAGE_BYTES, PIECE_BYTES, FreshMemory, PageSizes, free_huge_bytes, plain_memory

LINE = "Node {}, zone {:>8} 5000 100 0 0 0 0 0 0 30 {} {}\n"


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the blocks' sizes are those of 4 KiB pages")
def test_free_blocks_of_all_zones_count_from_the_size_of_a_huge_page(tmp_path):
    path = tmp_path / "buddyinfo"
    path.write_text(LINE.format(0, "DMA32", 3, 5) + LINE.format(1, "Normal", 3, 5))
    assert free_huge_bytes(str(path)) == 2 * (3 * (2 << 20) + 5 * (4 << 20))
    path.write_text(LINE.format(0, "Normal", 0, 0))
    assert free_huge_bytes(str(path)) == 0


def test_a_system_that_does_not_tell_its_free_blocks_is_no_error(tmp_path):
    assert free_huge_bytes(str(tmp_path / "none")) is None
    (tmp_path / "odd").write_text("Node 0, zone DMA" + " many" * 11 + "\n")
    assert free_huge_bytes(str(tmp_path / "odd")) is None


def choices(sizes, seconds, count):
    """What is chosen when pieces take ``seconds[is huge]``."""
    chosen = []
    for _ in range(count):
        chosen.append(sizes.next_is_huge())
        sizes.note(chosen[-1], seconds[chosen[-1]])
    return chosen


@pytest.mark.parametrize(("huge_s", "small_s"), [(1.0, 3.0), (3.0, 1.0)])
def test_both_sizes_are_tried_and_the_faster_one_is_taken(huge_s, small_s):
    chosen = choices(PageSizes(10_000), {True: huge_s, False: small_s}, 1000)
    slower = huge_s > small_s
    assert chosen[0] is True and chosen[1] is False
    assert 4 <= chosen.count(slower) <= 8, "the slower one is tried again at growing distances"
    assert slower not in chosen[3:2 + FIRST_PAUSE]


def test_what_becomes_faster_is_taken_after_the_next_try():
    sizes = PageSizes(10_000)
    choices(sizes, {True: 9.0, False: 1.0}, 100)
    later = choices(sizes, {True: 0.1, False: 5.0}, 200)
    assert later.count(True) > 150


def test_no_more_huge_pages_are_asked_for_than_there_are():
    assert choices(PageSizes(5), {True: 1.0, False: 9.0}, 100).count(True) == 5
    assert not any(choices(PageSizes(0), {True: 1.0, False: 9.0}, 100))


@pytest.fixture
def recorded():
    """(populate, the (address, bytes) it was given)."""
    calls = []

    def populate(address, size_bytes):
        calls.append((address, size_bytes))
        return True

    return populate, calls


def test_each_piece_is_populated_once_whoever_asks(recorded):
    populate, calls = recorded
    memory = FreshMemory(10 * PIECE_BYTES + 5, populate)
    start = memory.tensor.data_ptr()
    assert memory.tensor.numel() == 10 * PIECE_BYTES + 5 and start % HUGE_PAGE_BYTES == 0
    memory.populate(PIECE_BYTES + 1, PIECE_BYTES + 2)
    memory.populate(PIECE_BYTES, 2 * PIECE_BYTES)
    assert calls == [(start + PIECE_BYTES, PIECE_BYTES)]
    threads = [threading.Thread(target=memory.populate, args=(0, 10 * PIECE_BYTES + 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == [(start + piece * PIECE_BYTES, PIECE_BYTES) for piece in range(10)]


def test_where_nothing_can_be_populated_memory_is_touched_as_it_is_used():
    calls = []
    memory = FreshMemory(4 * PIECE_BYTES, lambda address, size_bytes: bool(calls.append(address)))
    memory.populate(0, 4 * PIECE_BYTES)
    memory.populate(0, 4 * PIECE_BYTES)
    assert len(calls) == 1
    assert int(memory.tensor.fill_(3)[-1]) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize("free", [None, 0, 3 * PIECE_BYTES])
def test_what_is_written_stays_when_pieces_are_populated(monkeypatch, free):
    assert free_huge_bytes() is not None
    monkeypatch.setattr(fresh_memory, "free_huge_bytes", lambda: free)
    memory = FreshMemory(8 * PIECE_BYTES + 12345)
    assert not memory.tensor.any()
    memory.tensor[::1000] = 7
    memory.populate(0, memory.tensor.numel())
    assert bool((memory.tensor[::1000] == 7).all()) and int(memory.tensor.count_nonzero()) == len(memory.tensor[::1000])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_populated_memory_is_resident_and_goes_back_with_its_last_view():
    process = psutil.Process()
    before = process.memory_info().rss
    memory = FreshMemory(16 * PIECE_BYTES)
    memory.populate(0, 16 * PIECE_BYTES)
    assert process.memory_info().rss - before > 15 * PIECE_BYTES
    view, storage = memory.tensor[100:200], weakref.ref(memory.tensor.untyped_storage())
    del memory
    gc.collect()
    assert process.memory_info().rss - before > 15 * PIECE_BYTES
    del view
    gc.collect()
    assert storage() is None and process.memory_info().rss - before < 2 * PIECE_BYTES


def test_small_memory_comes_from_the_heap_and_is_never_an_inference_tensor(recorded):
    populate, calls = recorded
    with torch.inference_mode():
        small, large = FreshMemory(1000, populate), plain_memory(2 * PIECE_BYTES)
    small.populate(0, 1000)
    assert small.tensor.numel() == 1000 and not calls
    assert not small.tensor.is_inference() and not large.is_inference()
