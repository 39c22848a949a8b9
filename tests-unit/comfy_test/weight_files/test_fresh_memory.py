"""Memory for weights: what is asked of the system, and that the faster page size is taken."""

import gc
import mmap
import sys
import threading
import weakref

import psutil
import pytest
import torch

from comfy.weight_files import fresh_memory
from comfy.weight_files.fresh_memory import (
    FIRST_PAUSE,
    HUGE_PAGE_BYTES,
    LONGEST_PAUSE,
    PIECE_BYTES,
    STEP_BYTES,
    FreshMemory,
    PageSizes,
    free_huge_bytes,
    page_sizes,
)
from comfy.weight_files.spare_memory import SpareMemory

LINE = "Node {}, zone {:>8} 5000 100 0 0 0 0 0 0 30 {} {}\n"


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the blocks' sizes are those of 4 KiB pages")
def test_free_blocks_of_all_zones_count_from_the_size_of_a_huge_page(tmp_path):
    path = tmp_path / "buddyinfo"
    path.write_text(LINE.format(0, "DMA32", 3, 5) + LINE.format(1, "Normal", 3, 5))
    assert free_huge_bytes(str(path)) == 2 * (3 * (2 << 20) + 5 * (4 << 20))
    path.write_text(LINE.format(0, "Normal", 0, 0))
    assert free_huge_bytes(str(path)) == 0


def test_a_system_that_does_not_report_free_blocks_is_accepted(tmp_path):
    assert free_huge_bytes(str(tmp_path / "none")) is None
    (tmp_path / "odd").write_text("Node 0, zone DMA" + " many" * 11 + "\n")
    assert free_huge_bytes(str(tmp_path / "odd")) is None


def choices(sizes, seconds, count, huge_bytes_left=1 << 60):
    """What is chosen when a byte takes ``seconds[is huge]``."""
    chosen = []
    for _ in range(count):
        chosen.append(sizes.next_piece(huge_bytes_left))
        for _, huge in chosen[-1]:
            sizes.note(huge, seconds[huge])
    assert all(sum(size_bytes for size_bytes, _ in parts) == PIECE_BYTES for parts in chosen)
    return chosen


HUGE, SMALL = [(PIECE_BYTES, True)], [(PIECE_BYTES, False)]


@pytest.mark.parametrize(("huge_s", "small_s"), [(1.0, 3.0), (3.0, 1.0)])
def test_both_sizes_are_tried_and_the_faster_one_is_taken(huge_s, small_s):
    chosen = choices(PageSizes(), {True: huge_s, False: small_s}, 1000)
    faster, trials = (HUGE, SMALL)[huge_s > small_s], [parts for parts in chosen if len(parts) == 2]
    assert chosen[0] == [(HUGE_PAGE_BYTES, True), (PIECE_BYTES - HUGE_PAGE_BYTES, False)]
    assert chosen[1:FIRST_PAUSE] == [faster] * (FIRST_PAUSE - 1)
    assert 5 <= len(trials) <= 8, "the slower one is tried again at growing distances"
    assert chosen.count(faster) + len(trials) == len(chosen)


def test_trials_continue_however_much_was_read():
    chosen = choices(PageSizes(), {True: 3.0, False: 1.0}, 20_000)
    assert any(len(parts) == 2 for parts in chosen[-LONGEST_PAUSE - 1 :])


def test_what_becomes_faster_is_taken_after_the_next_try():
    sizes = PageSizes()
    choices(sizes, {True: 9.0, False: 1.0}, 100)
    assert choices(sizes, {True: 0.1, False: 5.0}, 300).count(HUGE) > 150


def test_no_more_huge_pages_are_asked_for_than_there_are():
    sizes = PageSizes()
    assert HUGE in choices(sizes, {True: 1.0, False: 9.0}, 10, PIECE_BYTES)
    assert choices(sizes, {True: 1.0, False: 9.0}, 100, PIECE_BYTES - 1) == [SMALL] * 100


@pytest.fixture
def recorded():
    """(populate, the (address, bytes) it was given)."""
    calls = []

    def populate(address, size_bytes):
        calls.append((address, size_bytes))
        return True

    return populate, calls


class SmallPages(PageSizes):
    """Never tries huge ones, so that a piece is one call."""

    def next_piece(self, huge_bytes_left):
        return [(PIECE_BYTES, False)]


class HugeFirst(PageSizes):
    """Each piece begins with a huge page."""

    def next_piece(self, huge_bytes_left):
        return [(HUGE_PAGE_BYTES, True), (PIECE_BYTES - HUGE_PAGE_BYTES, False)]


def test_each_step_is_populated_once_whoever_asks(recorded):
    populate, calls = recorded
    memory = FreshMemory(10 * PIECE_BYTES + 5, populate, SpareMemory(), SmallPages())
    start = memory.tensor.data_ptr()
    assert memory.tensor.numel() == 10 * PIECE_BYTES + 5 and start % HUGE_PAGE_BYTES == 0
    step = PIECE_BYTES + 3 * STEP_BYTES
    memory.populate(step + 1, step + 2)
    memory.populate(step + 1, step + STEP_BYTES)
    assert calls == [(start + step, STEP_BYTES)]
    memory.populate(PIECE_BYTES, 2 * PIECE_BYTES)
    assert calls[1:] == [(start + PIECE_BYTES, 3 * STEP_BYTES), (start + step + STEP_BYTES, PIECE_BYTES - 4 * STEP_BYTES)]
    del calls[:]
    threads = [threading.Thread(target=memory.populate, args=(0, 10 * PIECE_BYTES + 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == [(start + piece * PIECE_BYTES, PIECE_BYTES) for piece in range(10) if piece != 1]


class AllHuge(PageSizes):
    """Only huge pages; keeps what it is told."""

    def next_piece(self, huge_bytes_left):
        return [(PIECE_BYTES, True)]

    def note(self, huge, seconds_per_byte):
        self.noted.append(huge)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_what_is_less_than_a_huge_page_is_not_timed_as_one(recorded):
    populate, calls = recorded
    sizes = AllHuge()
    sizes.noted = []
    memory = FreshMemory(2 * PIECE_BYTES + STEP_BYTES + 5, populate, SpareMemory(), sizes)
    memory.populate(0, 2 * PIECE_BYTES + STEP_BYTES + 5)
    assert [size for _, size in calls] == [PIECE_BYTES, PIECE_BYTES, STEP_BYTES] and sizes.noted == [True, True, False]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_huge_pages_are_populated_whole_and_small_ones_step_by_step(recorded):
    populate, calls = recorded
    memory = FreshMemory(2 * PIECE_BYTES, populate, SpareMemory(), HugeFirst())
    start, huge = memory.tensor.data_ptr(), (memory.tensor.data_ptr(), HUGE_PAGE_BYTES)
    memory.populate(HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES + 2)
    memory.populate(HUGE_PAGE_BYTES // 2 + 1, HUGE_PAGE_BYTES // 2 + 2)
    assert calls == [(start + HUGE_PAGE_BYTES, STEP_BYTES), huge]
    memory.populate(0, HUGE_PAGE_BYTES)
    assert len(calls) == 2
    memory.populate(0, PIECE_BYTES)
    rest = HUGE_PAGE_BYTES + STEP_BYTES
    assert calls[2:] == [(start + rest, PIECE_BYTES - rest)]


def test_where_nothing_can_be_populated_memory_is_touched_as_it_is_used():
    calls = []
    memory = FreshMemory(4 * PIECE_BYTES, lambda address, size_bytes: bool(calls.append(address)), SpareMemory())
    memory.populate(0, 4 * PIECE_BYTES)
    memory.populate(0, 4 * PIECE_BYTES)
    assert len(calls) == 1
    assert int(memory.tensor.fill_(3)[-1]) == 3


def test_a_thread_that_finds_out_that_nothing_can_be_populated_stops_no_other():
    calls = []

    def populate(address, size_bytes):
        calls.append(address)
        if len(calls) > 1:
            return False
        other = threading.Thread(target=memory.populate, args=(PIECE_BYTES, 2 * PIECE_BYTES))
        other.start()
        other.join()
        return True

    memory = FreshMemory(4 * PIECE_BYTES, populate, SpareMemory(), SmallPages())
    memory.populate(0, 4 * PIECE_BYTES)
    assert len(calls) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize("free", [None, 0, 3 * PIECE_BYTES])
def test_what_is_written_stays_when_pieces_are_populated(monkeypatch, free):
    assert free_huge_bytes() is not None
    assert page_sizes() is page_sizes()
    monkeypatch.setattr(fresh_memory, "free_huge_bytes", lambda: free)
    memory = FreshMemory(8 * PIECE_BYTES + 12345, spare=SpareMemory(), sizes=PageSizes())
    assert not memory.tensor.any()
    memory.tensor[::1000] = 7
    memory.populate(0, memory.tensor.numel())
    assert bool((memory.tensor[::1000] == 7).all()) and int(memory.tensor.count_nonzero()) == len(memory.tensor[::1000])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_populated_memory_is_resident_and_spare_with_its_last_view():
    process, spare = psutil.Process(), SpareMemory()
    before = process.memory_info().rss
    memory = FreshMemory(16 * PIECE_BYTES, spare=spare)
    memory.populate(0, 16 * PIECE_BYTES)
    assert process.memory_info().rss - before > 15 * PIECE_BYTES
    view, storage = memory.tensor[100:200], weakref.ref(memory.tensor.untyped_storage())
    del memory
    gc.collect()
    assert process.memory_info().rss - before > 15 * PIECE_BYTES
    del view
    gc.collect()
    assert storage() is None and spare.release() >= 16 * PIECE_BYTES
    assert process.memory_info().rss - before < 2 * PIECE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize("pieces", [4, 8, 12])
def test_what_was_dropped_serves_the_next_and_is_not_populated_again(recorded, pieces):
    populate, calls = recorded
    spare = SpareMemory()
    del FreshMemory(8 * PIECE_BYTES, populate, spare).tensor
    gc.collect()
    assert spare.total_bytes() == 8 * PIECE_BYTES + HUGE_PAGE_BYTES
    memory = FreshMemory(pieces * PIECE_BYTES, populate, spare, SmallPages())
    memory.populate(0, pieces * PIECE_BYTES)
    assert spare.total_bytes() == 0 and memory.tensor.numel() == pieces * PIECE_BYTES and memory.tensor.data_ptr() % HUGE_PAGE_BYTES == 0
    assert len(calls) == max(0, pieces - 8)
    assert bool((memory.tensor.fill_(5) == 5).all()) and memory.tensor.untyped_storage().nbytes() == pieces * PIECE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_memory_in_use_is_never_taken_over():
    spare = SpareMemory()
    first = FreshMemory(2 * PIECE_BYTES, spare=spare)
    view = first.tensor.fill_(7)[-10:]
    del first
    gc.collect()
    second = FreshMemory(2 * PIECE_BYTES, spare=spare)
    second.tensor.fill_(9)
    assert view.tolist() == [7] * 10


def test_small_memory_comes_from_the_heap_and_is_never_an_inference_tensor(recorded):
    populate, calls = recorded
    with torch.inference_mode():
        small, large = FreshMemory(1000, populate), FreshMemory(2 * PIECE_BYTES, populate)
    small.populate(0, 1000)
    assert small.tensor.numel() == 1000 and not calls
    assert not small.tensor.is_inference() and not large.tensor.is_inference()
