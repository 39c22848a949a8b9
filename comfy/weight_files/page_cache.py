"""Drops from the system's page cache what a read brought into it, and only that: other processes may rely on the rest.

A file's bytes in memory of our own and again in the page cache count twice against RAM. Which pages were there before is asked once, when
the file is opened: of ``cachestat`` (Linux 6.5; settles the two usual cases, all and nothing, in 2 to 20 ms per GB that is there; a large
file of which 64 samples are there counts as all there, so that a page between them may stay), else of ``mincore`` (page
by page, 15 ms per GB), and where the kernel does not tell this process the truth (a file of another user on which it may not write), of
reads that are to fail instead of waiting (``preadv`` with ``RWF_NOWAIT``). Those come last because such a read may start fetching the
page that it did not find (seen on Linux 6.18), so the question itself changes the answer. Linux; elsewhere nothing is dropped.
"""

import bisect
import contextlib
import ctypes
import functools
import mmap
import os
import sys
import time
from collections.abc import Callable

import numpy

BLOCK_BYTES = 256 << 10
SPOT_CHECKS = 64
SAMPLED_BYTES = 1 << 30  # of larger files samples are asked about first: counting all that is there takes 20 ms per GB in small pages
SETTLE_CHECKS, SETTLE_PAUSE_S = 50, 0.002  # for pages that are still being fetched
CACHESTAT = 451  # the system call's number on every architecture but alpha
Runs = list[tuple[int, int]]


class PageCacheGuard:
    """Remembers which pages of the open file *file* were absent from the page cache when it was made. Any thread; owns nothing.

    *count* and *locate* are :func:`cached_pages` and :func:`absent_by_mincore` but for tests.
    """

    def __init__(
        self,
        file: int,
        size_bytes: int,
        count: "Callable[..., int | None] | None" = None,
        locate: "Callable[[int, int], Runs | None] | None" = None,
    ) -> None:
        self._file = file
        runs = _absent_runs(file, size_bytes, count or cached_pages, locate or absent_by_mincore)
        self._starts = [start for start, _ in runs]
        self._stops = [stop for _, stop in runs]

    def absent_bytes(self) -> int:
        """Bytes of the pages that were absent."""
        return sum(self._stops) - sum(self._starts)

    def was_absent(self, start: int, stop: int) -> bool:
        """Whether no byte from *start* to *stop* was there."""
        position = bisect.bisect_right(self._stops, start)
        return position < len(self._starts) and self._starts[position] <= start and stop <= self._stops[position]

    def drop(self, start: int, stop: int) -> None:
        """Drop the pages that lie wholly in bytes *start* to *stop* and were absent. Pages being written or fetched stay."""
        position = bisect.bisect_right(self._stops, start)
        while position < len(self._starts) and self._starts[position] < stop:
            first, last = max(start, self._starts[position]), min(stop, self._stops[position])
            os.posix_fadvise(self._file, first, last - first, os.POSIX_FADV_DONTNEED)
            position += 1

    def drop_all(self) -> None:
        """Drop every page that was absent, those that the system read ahead of us included. Call it when nobody reads any more.

        Pages that are still being fetched are waited for, 0.1 s at most.
        """
        if not self._stops:
            return
        for _ in range(SETTLE_CHECKS):
            self.drop(0, self._stops[-1])
            if not any(cached_pages(self._file, stop, start) for start, stop in zip(self._starts, self._stops)):
                return
            time.sleep(SETTLE_PAUSE_S)


def can_drop_pages() -> bool:
    """Whether this system tells what its page cache holds and takes advice about it."""
    return sys.platform.startswith("linux") and hasattr(os, "posix_fadvise")


def _absent_runs(file: int, size_bytes: int, count: Callable[..., int | None], locate: Callable[[int, int], Runs | None]) -> Runs:
    pages = -(-size_bytes // mmap.PAGESIZE)
    if size_bytes >= SAMPLED_BYTES and samples_are_cached(file, size_bytes, count):
        return []
    cached = count(file, size_bytes) if pages else 0
    if cached == pages:
        return []
    if cached == 0:
        return [(0, pages * mmap.PAGESIZE)]
    runs = locate(file, size_bytes)
    if runs is None or (not runs and (cached is not None or not _spots_are_cached(file, size_bytes))):
        return absent_by_reading(file, size_bytes)
    return runs


def samples_are_cached(file: int, size_bytes: int, count: Callable[..., int | None]) -> bool:
    """Whether *count* finds every page of 64 blocks of 256 KiB, spread evenly over the file, in the page cache; asking changes nothing."""
    apart = size_bytes // SPOT_CHECKS // BLOCK_BYTES * BLOCK_BYTES
    starts = range(0, SPOT_CHECKS * apart, apart) if apart else ()
    return all(count(file, start + BLOCK_BYTES, start) == BLOCK_BYTES // mmap.PAGESIZE for start in starts)


def cached_pages(file: int, stop: int, start: int = 0) -> int | None:
    """How many of the pages with bytes *start* to *stop* of the file are in the page cache; None where the kernel does not say."""
    interval, answer = (ctypes.c_uint64 * 2)(start, stop - start), (ctypes.c_uint64 * 5)()
    failed = _libc().syscall(CACHESTAT, file, interval, answer, 0)
    return None if failed else answer[0]


def absent_by_mincore(file: int, size_bytes: int) -> Runs | None:
    """Byte ranges, ends on page boundaries, of the pages that are not in the page cache; None where the kernel cannot be asked.

    The kernel claims that all are there when this process neither owns the file nor may write to it.
    """
    states = numpy.zeros(-(-size_bytes // mmap.PAGESIZE), dtype=numpy.uint8)
    try:
        with mmap.mmap(file, size_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapping:
            mapped = numpy.frombuffer(mapping, dtype=numpy.uint8)
            failed = _libc().mincore(ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(size_bytes), ctypes.c_void_p(states.ctypes.data))
            del mapped  # the mapping cannot be closed while it is looked at
    except (OSError, ValueError, AttributeError):
        return None
    return None if failed else _runs(states & 1 == 0, mmap.PAGESIZE)


def absent_by_reading(file: int, size_bytes: int) -> Runs:
    """The same by blocks of 256 KiB, absent where the first and the last page are; nothing where such reads are not supported."""
    absent = numpy.zeros(-(-size_bytes // BLOCK_BYTES), dtype=bool)
    with contextlib.suppress(OSError):
        for block in range(len(absent)):
            last = min((block + 1) * BLOCK_BYTES, size_bytes) - 1
            absent[block] = not _is_cached(file, block * BLOCK_BYTES) and not _is_cached(file, last)
    return _runs(absent, BLOCK_BYTES)


def _spots_are_cached(file: int, size_bytes: int) -> bool:
    """Whether pages here and there in the file are in the page cache; also true where that cannot be told."""
    with contextlib.suppress(OSError):
        return all(_is_cached(file, size_bytes * (2 * spot + 1) // (2 * SPOT_CHECKS)) for spot in range(SPOT_CHECKS))
    return True


def _is_cached(file: int, position: int) -> bool:
    """Whether the page at *position* can be read without waiting. Raises ``OSError`` where the file system cannot tell."""
    try:
        return os.preadv(file, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _runs(flags: numpy.ndarray, unit_bytes: int) -> Runs:
    """The ranges of consecutive true *flags*, in bytes."""
    edges = numpy.flatnonzero(numpy.diff(flags.astype(numpy.int8), prepend=0, append=0)) * unit_bytes
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2])]
