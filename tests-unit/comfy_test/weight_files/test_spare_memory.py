"""Memory of dropped weights waits for the next load, costs nobody anything, and goes back when asked."""

import mmap
import sys
import threading

import psutil
import pytest

from comfy.weight_files.spare_memory import SpareMemory

MIB = 1 << 20
FLAGS = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is kept")


@pytest.fixture
def spare():
    kept = SpareMemory()
    yield kept
    kept.release()


def given(spare, *sizes):
    """Mappings of *sizes* in MiB, filled with their size and left to *spare*."""
    for size in sizes:
        mapping = mmap.mmap(-1, size * MIB, flags=FLAGS)
        mapping[:] = bytes([size]) * (size * MIB)
        spare.give(mapping)


def test_the_closest_in_size_is_taken_and_cut_or_extended(spare):
    given(spare, 16, 40)
    assert spare.total_bytes() == 56 * MIB
    cut, used_bytes = spare.take(15 * MIB)
    assert (len(cut), used_bytes, cut[0], cut[-1]) == (15 * MIB, 15 * MIB, 16, 16)
    extended, used_bytes = spare.take(64 * MIB)
    assert (len(extended), used_bytes, extended[40 * MIB - 1], extended[40 * MIB], extended[-1]) == (64 * MIB, 40 * MIB, 40, 0, 0)
    given(spare, 4)
    same, used_bytes = spare.take(4 * MIB)
    assert (len(same), used_bytes, spare.total_bytes()) == (4 * MIB, 4 * MIB, 0)
    fresh, used_bytes = spare.take(8 * MIB)
    assert (len(fresh), used_bytes, fresh[:].count(0)) == (8 * MIB, 0, 8 * MIB)


def test_a_mapping_with_several_kinds_of_pages_can_grow(spare):
    mapping, _ = spare.take(24 * MIB)
    for piece in (0, 16):
        mapping.madvise(mmap.MADV_HUGEPAGE, piece * MIB, 8 * MIB)
    mapping[:] = b"x" * (24 * MIB)
    spare.give(mapping)
    found, used_bytes = spare.take(32 * MIB)
    assert (len(found), used_bytes, found[: 24 * MIB].count(b"x")) == (32 * MIB, 24 * MIB, 24 * MIB)


def test_what_cannot_be_resized_is_given_up_for_a_new_one(spare):
    mapping = mmap.mmap(-1, 8 * MIB, flags=FLAGS)
    mapping.write(b"x")
    mapping.madvise(mmap.MADV_DONTFORK, 0, 4 * MIB)  # two kinds of pages that no advice of ours makes one
    spare.give(mapping)
    found, used_bytes = spare.take(9 * MIB)
    assert (len(found), used_bytes, found[0], spare.total_bytes()) == (9 * MIB, 0, 0, 0) and mapping.closed


@pytest.mark.parametrize(("sizes", "wanted", "left"), [((10, 30), 50, 0), ((10, 30), 40, 0), ((10, 30), 33, 7), ((8, 8, 8), 9, 15)])
def test_taking_makes_the_process_larger_by_no_more_than_is_missing(spare, sizes, wanted, left):
    given(spare, *sizes)
    before = psutil.Process().memory_info().rss
    found, used_bytes = spare.take(wanted * MIB)
    found[used_bytes:] = b"x" * (len(found) - used_bytes)
    assert spare.total_bytes() == left * MIB
    assert psutil.Process().memory_info().rss - before < max(0, wanted - sum(sizes)) * MIB + wanted * MIB // 4
    found.close()


def test_release_gives_everything_back(spare):
    process = psutil.Process()
    given(spare, 32, 32)
    full = process.memory_info().rss
    assert spare.release() == 64 * MIB
    assert full - process.memory_info().rss > 60 * MIB and spare.total_bytes() == 0


def test_no_mapping_is_given_to_two(spare):
    given(spare, *[1] * 40)
    taken = []

    def take():
        taken.extend(spare.take(MIB) for _ in range(10))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(mapping) for mapping, _ in taken}) == 40 and all(used_bytes == MIB for _, used_bytes in taken)


def test_giving_takes_no_lock(spare):
    with spare._taking:
        given(spare, 1)
    assert spare.total_bytes() == MIB
