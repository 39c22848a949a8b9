"""Fresh memory for weights, brought in piece by piece in the page size that is faster at the moment.

Huge pages make first touches several times as fast, or several times as slow: with ``defrag=madvise``, the usual setting, each touch
compacts memory first when no block is free, and a virtual machine that has handed its free blocks to the host must ask for them again,
while smaller blocks are there. Both were measured on one machine within minutes, so nothing is assumed: pieces are populated before they
are read into, timed, and the next one takes what was faster. Where the system cannot populate, pages come as they are touched.
Memory of weights dropped moments before comes first: its pages are there already.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
import threading
import time
import weakref
from collections.abc import Callable

import torch

from comfy.units import MIB
from comfy.weight_files.spare_memory import SpareMemory, spare_memory

BUDDY_INFO = "/proc/buddyinfo"
HUGE_PAGE_BYTES = 2 * MIB
SMALL_PAGE_BYTES = mmap.PAGESIZE
PIECE_BYTES = 8 * MIB
STEP_BYTES = MIB // 2  # of small pages: what is written to them at once finds them in the processor's cache
STEPS, HUGE_STEPS = PIECE_BYTES // STEP_BYTES, HUGE_PAGE_BYTES // STEP_BYTES
SMALLEST_BYTES = 8 * MIB  # less comes from the allocator's heap
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; madvise(2)
USED_SHARE = 0.9  # of the free blocks: others allocate meanwhile
FIRST_PAUSE, LONGEST_PAUSE = 16, 1024
FORGETTING = 0.5
# Of small pages' time. A little faster does not count: large blocks are what a virtual machine hands to its host, and cost much then.
HUGE_MUST_TAKE = 0.6

Populate = Callable[[int, int], bool]


def free_huge_bytes(path: str = BUDDY_INFO) -> int | None:
    """Memory in free blocks of at least a huge page; None where the system does not tell.

    *path* lists, per zone, how many blocks of 2⁰, 2¹, 2² … small pages are free (Linux, proc(5)).
    """
    total = 0
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                sizes = [SMALL_PAGE_BYTES << order for order in range(len(line.split()) - 4)]
                total += sum(int(count) * size for count, size in zip(line.split()[4:], sizes) if size >= HUGE_PAGE_BYTES)
    except (OSError, ValueError):
        return None
    return total


class PageSizes:
    """Tells in which pages to bring in one piece after the other, by what that took before. Any thread.

    Both kinds are tried with the first piece; from then on huge pages are used if they are clearly faster, else small ones, and one huge
    page's worth of the other kind is tried again after 16 pieces, after 32 more, and so on, as long as that changes nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds_per_byte: dict[bool, float | None] = {True: None, False: None}
        self._faster = False
        self._pause, self._until_trial = FIRST_PAUSE, 0

    def next_piece(self, huge_bytes_left: int) -> list[tuple[int, bool]]:
        """The next piece as [(bytes, whether in huge pages), …]; small pages only where less than a piece may still be huge."""
        if huge_bytes_left < PIECE_BYTES:
            return [(PIECE_BYTES, False)]
        with self._lock:
            if self._until_trial > 0:
                self._until_trial -= 1
                return [(PIECE_BYTES, self._faster)]
            self._until_trial, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            return [(HUGE_PAGE_BYTES, not self._faster), (PIECE_BYTES - HUGE_PAGE_BYTES, self._faster)]

    def note(self, huge: bool, seconds_per_byte: float) -> None:
        """What bringing in a part of a piece took."""
        with self._lock:
            before = self._seconds_per_byte[huge]
            self._seconds_per_byte[huge] = seconds_per_byte if before is None else FORGETTING * before + (1 - FORGETTING) * seconds_per_byte
            of_huge, of_small = self._seconds_per_byte[True], self._seconds_per_byte[False]
            faster = of_huge is not None and of_small is not None and of_huge <= HUGE_MUST_TAKE * of_small
            if faster is not self._faster:
                self._faster, self._pause, self._until_trial = faster, FIRST_PAUSE, FIRST_PAUSE


@functools.cache
def page_sizes() -> PageSizes:
    """The process's own: what one load has found out serves the next."""
    return PageSizes()


class FreshMemory:
    """*size_bytes* of private memory with any contents; ``tensor`` is all of it as bytes and keeps it alive. Never an inference tensor.

    As soon as the last view of ``tensor`` is gone, it is spare memory. Any thread may call :meth:`populate`. Raises ``MemoryError``.
    """

    def __init__(
        self, size_bytes: int, populate: Populate | None = None, spare: SpareMemory | None = None, sizes: PageSizes | None = None
    ) -> None:
        """*populate(address, bytes)* brings pages in and tells whether it could; it and the rest are by default the process's own."""
        self._mapping: mmap.mmap | None = None
        self._lock = threading.Lock()
        self._done = bytearray()
        self._parts: dict[int, list[tuple[int, int, bool]]] = {}  # of the pieces that have been begun
        self._can_populate = True
        self._populate = populate or _system_populate()
        self._sizes = sizes or page_sizes()
        if size_bytes < SMALLEST_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
            with torch.inference_mode(False):
                self.tensor = torch.empty(size_bytes, dtype=torch.uint8)
            return
        spare = spare or spare_memory()
        try:
            self._mapping, used_bytes = spare.take(size_bytes + HUGE_PAGE_BYTES)
        except OSError as error:
            raise MemoryError(f"the system has no {size_bytes} bytes of memory for weights ({error}); free a model") from error
        view = memoryview(self._mapping)
        with torch.inference_mode(False):
            self._start = -torch.frombuffer(view, dtype=torch.uint8, count=1).data_ptr() % HUGE_PAGE_BYTES
            self.tensor = torch.frombuffer(view, dtype=torch.uint8, offset=self._start, count=size_bytes)
        self._address = self.tensor.data_ptr()
        weakref.finalize(view, spare.give, self._mapping).atexit = False
        self._done = bytearray(size_bytes // STEP_BYTES)
        there = min(len(self._done), max(0, used_bytes - self._start) // STEP_BYTES)
        self._done[:there] = b"\1" * there
        free_bytes = free_huge_bytes()
        self._huge_bytes_left = size_bytes if free_bytes is None else int(free_bytes * USED_SHARE)

    def populate(self, first: int, stop: int) -> None:
        """Bring in the steps, or huge pages, that bytes *first* to *stop* lie in, unless that was done; what lies in them stays."""
        step, last = first // STEP_BYTES, min(len(self._done), -(-stop // STEP_BYTES))
        while self._can_populate and (step := self._done.find(0, step, last)) >= 0:
            with self._lock:
                begin, end, huge = self._claim(step, last)
            if begin < end and not self._bring_in(begin, end, huge):
                self._can_populate = False

    def _claim(self, step: int, stop: int) -> tuple[int, int, bool]:
        """The first of steps *step* to *stop* that nobody has claimed, and those after it in the same pages; all of what is huge.

        As (first, stop, whether huge), equal ones when there is none.
        """
        parts = self._parts.get(step // STEPS) or self._begin(step // STEPS)
        begin, end, huge = parts[0] if step < parts[0][1] else parts[1]
        step, stop = (begin, end) if huge else (step, min(end, stop))
        if (step := self._done.find(0, step, stop)) < 0:
            return stop, stop, huge
        claimed = self._done.find(1, step, stop)
        stop = stop if claimed < 0 else claimed
        self._done[step:stop] = b"\1" * (stop - step)
        return step, stop, huge and step % HUGE_STEPS == stop % HUGE_STEPS == 0  # less than a huge page is not one

    def _begin(self, piece: int) -> list[tuple[int, int, bool]]:
        """Decide on the pages of *piece*; one or two parts of it, as (first step, stop, whether huge)."""
        parts, begin = [], piece * STEPS
        for size_bytes, huge in self._sizes.next_piece(self._huge_bytes_left):
            end = begin + size_bytes // STEP_BYTES
            parts.append((begin, min(end, len(self._done)), huge))
            self._huge_bytes_left -= size_bytes if huge else 0
            begin = end
        self._parts[piece] = parts
        return parts

    def _bring_in(self, step: int, stop: int, huge: bool) -> bool:
        offset, size_bytes = step * STEP_BYTES, (stop - step) * STEP_BYTES
        if step % HUGE_STEPS:  # its neighbours are timed
            return self._populate(self._address + offset, size_bytes)
        began_s = time.perf_counter()
        if huge and self._mapping is not None:
            self._mapping.madvise(mmap.MADV_HUGEPAGE, self._start + offset, size_bytes)
        if not self._populate(self._address + offset, size_bytes):
            return False
        self._sizes.note(huge, (time.perf_counter() - began_s) / size_bytes)
        return True


@functools.cache
def _system_populate() -> Populate:
    """The C library's ``madvise``: unlike the one of ``mmap`` it lets other threads run meanwhile."""
    if sys.platform != "linux":
        return lambda address, size_bytes: False
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return lambda address, size_bytes: madvise(address, size_bytes, POPULATE_WRITE) == 0
