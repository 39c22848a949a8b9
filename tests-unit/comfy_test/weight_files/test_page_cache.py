"""Dropping from the page cache what a read brought in, and nothing else; on the real kernel where it is Linux."""

import contextlib
import mmap
import os
import time

import pytest
import safetensors.torch
import torch

from comfy.weight_files import page_cache
from comfy.weight_files.page_cache import (
    BLOCK_BYTES,
    SETTLE_CHECKS,
    SPOT_CHECKS,
    PageCacheGuard,
    absent_by_mincore,
    absent_by_reading,
    cached_pages,
    can_drop_pages,
)
from comfy.weight_files.reader import WeightReader

PAGE = mmap.PAGESIZE
MIB = 1 << 20
FILE_BYTES = 24 * MIB + 100


@pytest.fixture
def file(tmp_path):
    """An open file of :data:`FILE_BYTES` on a disk, none of it in the page cache."""
    path = tmp_path / "cold.bin"
    path.write_bytes(os.urandom(FILE_BYTES))
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    make_cold(number)
    yield number
    os.close(number)


def make_cold(number):
    if not can_drop_pages():
        pytest.skip("this system has no page cache that takes advice")
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    if absent_by_mincore(number, FILE_BYTES) != [(0, 24 * MIB + PAGE)]:
        pytest.skip("this file system keeps its pages, or does not tell")


def bring_in(number, start, stop):
    """Read bytes *start* to *stop* without the system reading ahead."""
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(number, stop - start, start)
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_NORMAL)


def absent_pages_are_told_by_reading(number):
    """Whether reads that may not wait fail at each of 32 pages of a cold file; leaves the file cold.

    The kernel starts to fetch a page that such a read does not find, and where the disk is quick enough the read finds it after all.
    """
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)
    told = 0
    try:
        for page in range(32):
            try:
                os.preadv(number, [bytearray(1)], FILE_BYTES * page // 32, os.RWF_NOWAIT)
            except BlockingIOError:
                told += 1
    except OSError:
        return False
    wait_until_cold(number)
    return told == 32


def wait_until_cold(number):
    """Drop all pages of the open file; pages that are still being fetched are waited for, five seconds at most."""
    give_up = time.monotonic() + 5
    while present(number) and time.monotonic() < give_up:
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        time.sleep(0.002)


def present(number):
    """Byte ranges in the page cache."""
    edges = [0, *(edge for run in absent_by_mincore(number, FILE_BYTES) for edge in run), 24 * MIB + PAGE]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2]) if start != stop]


def test_all_absent_and_all_present_are_reported_at_once(file):
    assert PageCacheGuard(file, FILE_BYTES, lambda *_: 0, pytest.fail).absent_bytes() == 24 * MIB + PAGE
    assert PageCacheGuard(file, FILE_BYTES, lambda *_: FILE_BYTES // PAGE + 1, pytest.fail).absent_bytes() == 0
    assert PageCacheGuard(file, 0).absent_bytes() == 0


def test_only_pages_that_were_absent_are_dropped(file):
    bring_in(file, 5 * MIB, 6 * MIB)
    bring_in(file, 20 * MIB + PAGE, 20 * MIB + 2 * PAGE)
    before = present(file)
    assert before[0] == (5 * MIB, 6 * MIB)
    guard = PageCacheGuard(file, FILE_BYTES)
    assert guard.absent_bytes() == 24 * MIB + PAGE - sum(stop - start for start, stop in before)
    bring_in(file, 0, FILE_BYTES)
    assert present(file) == [(0, 24 * MIB + PAGE)]
    guard.drop(0, 8 * MIB)
    assert present(file) == [before[0], (8 * MIB, 24 * MIB + PAGE)]
    guard.drop_all()
    assert present(file) == before


@pytest.mark.parametrize(("refusals", "pauses"), [(0, 0), (2, 2), (1000, SETTLE_CHECKS)])
def test_pages_that_cannot_be_dropped_yet_are_waited_for_but_not_for_long(file, monkeypatch, refusals, pauses):
    if cached_pages(file, FILE_BYTES) is None:
        pytest.skip("this kernel has no cachestat")
    guard, drop, refused, waited = PageCacheGuard(file, FILE_BYTES), PageCacheGuard.drop, [], []

    def drop_late(self, start, stop):
        if len(refused) == refusals:
            return drop(self, start, stop)
        refused.append((start, stop))

    monkeypatch.setattr(PageCacheGuard, "drop", drop_late)
    monkeypatch.setattr(page_cache.time, "sleep", waited.append)
    bring_in(file, 0, MIB)
    guard.drop_all()
    assert len(waited) == pauses and sum(waited) <= 0.11
    assert bool(present(file)) is (refusals > 2)


def test_parts_of_pages_at_the_ends_are_left(file):
    guard = PageCacheGuard(file, FILE_BYTES)
    bring_in(file, 0, 4 * PAGE)
    guard.drop(1, 3 * PAGE - 1)
    assert present(file) == [(0, PAGE), (2 * PAGE, 4 * PAGE)]


def test_the_kernels_count_agrees_with_the_pages_it_names(file):
    counted = cached_pages(file, FILE_BYTES)
    if counted is None:
        pytest.skip("this kernel has no cachestat")
    assert counted == 0
    bring_in(file, 3 * MIB, 4 * MIB)
    assert cached_pages(file, FILE_BYTES) * PAGE == sum(stop - start for start, stop in present(file)) >= MIB


def test_where_the_kernel_does_not_tell_reads_that_may_not_wait_do(file):
    """A kernel that claims that everything is there, to a process that may not know better."""
    if not absent_pages_are_told_by_reading(file):
        pytest.skip("this file system has no reads that fail instead of waiting, or its disk answers them at once")
    bring_in(file, 2 * MIB, 10 * MIB)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # else the system reads ahead of the questions and so changes the answers
    guard = PageCacheGuard(file, FILE_BYTES, lambda *_: None, lambda *_: [])
    assert guard.absent_bytes() == pytest.approx(16 * MIB, abs=MIB)
    bring_in(file, 0, FILE_BYTES)
    guard.drop_all()
    assert (2 * MIB, 10 * MIB) in [(max(start, 2 * MIB), min(stop, 10 * MIB)) for start, stop in present(file)]
    assert sum(stop - start for start, stop in present(file)) <= 9 * MIB


def test_a_warm_file_is_left_alone_however_little_the_kernel_tells(file):
    bring_in(file, 0, FILE_BYTES)
    for count, locate in ((None, None), (lambda *_: None, None), (lambda *_: None, lambda *_: None), (lambda *_: None, lambda *_: [])):
        assert PageCacheGuard(file, FILE_BYTES, count, locate).absent_bytes() == 0
    assert absent_by_reading(file, FILE_BYTES) == []


def test_nothing_is_known_absent_where_such_reads_are_not_supported():
    reading, writing = os.pipe()
    with contextlib.closing(os.fdopen(reading)), contextlib.closing(os.fdopen(writing, "w")):
        assert absent_by_reading(reading, MIB) == [] and absent_by_mincore(reading, MIB) is None


@pytest.fixture
def weights(tmp_path):
    """(path, open file) of cold weights, two of three tensors of 8 MB."""
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({name: torch.randn(2 << 20) for name in ("one", "two", "three")}, path)
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    make_cold(number)
    yield str(path), number
    os.close(number)


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_reader_leaves_the_page_cache_as_it_found_it(weights, dtype):
    path, number = weights
    with WeightReader(path, drop_pages=True) as reader:
        reader.read(["one", "two", "three"], dtype)
    assert present(number) == []
    bring_in(number, 9 * MIB, 11 * MIB)
    before = present(number)
    with WeightReader(path, drop_pages=True) as reader:
        reader.read(["two", "three"], dtype)
    assert present(number) == before


def test_a_reader_leaves_its_pages_unless_told_otherwise(weights):
    path, number = weights
    with WeightReader(path) as reader:
        reader.read(["one", "two", "three"])
    assert present(number) == [(0, 24 * MIB + PAGE)]


def test_a_read_that_fails_drops_its_pages_too(weights):
    path, number = weights
    calls = iter(range(2))

    def fail_at_the_third_chunk():
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), WeightReader(path, True, fail_at_the_third_chunk) as reader:
        reader.read(["one", "two", "three"], threads=1)
    assert present(number) == []


def test_samples_of_a_large_file_settle_that_all_is_there(file, monkeypatch):
    monkeypatch.setattr("comfy.weight_files.page_cache.SAMPLED_BYTES", FILE_BYTES)
    if cached_pages(file, FILE_BYTES) is None:
        pytest.skip("this kernel counts no pages")
    bring_in(file, 0, FILE_BYTES)
    asked = []

    def count(*interval):
        asked.append(interval[1] - interval[2] if len(interval) == 3 else "whole")
        return cached_pages(*interval)

    assert PageCacheGuard(file, FILE_BYTES, count).absent_bytes() == 0
    assert asked == [BLOCK_BYTES] * SPOT_CHECKS
    os.posix_fadvise(file, 12 * MIB, MIB, os.POSIX_FADV_DONTNEED)
    asked.clear()
    assert PageCacheGuard(file, FILE_BYTES, count).absent_bytes() == MIB and asked[-1] == "whole"


def test_a_cold_file_is_not_sampled_to_its_end(file, monkeypatch):
    monkeypatch.setattr("comfy.weight_files.page_cache.SAMPLED_BYTES", FILE_BYTES)
    if cached_pages(file, FILE_BYTES) is None:
        pytest.skip("this kernel counts no pages")
    asked = []

    def count(*interval):
        asked.append(interval)
        return cached_pages(*interval)

    assert PageCacheGuard(file, FILE_BYTES, count).absent_bytes() == 24 * MIB + PAGE
    assert len(asked) == 2, "the first sample is missing, and the count of the whole is nothing"
