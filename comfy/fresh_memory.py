"""Fresh memory for weights, brought in piece by piece in the page size that is faster at the moment.

Huge pages make first touches several times as fast, or several times as slow: with ``defrag=madvise``, the usual setting, each touch
compacts memory first when no block is free, and a virtual machine that has handed its free blocks to the host must ask for them again,
while smaller blocks are there. Both were measured on one machine within minutes, so nothing is assumed: pieces are populated before they
are read into, timed, and the next one takes what was faster. Where the system cannot populate, pages come as they are touched.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
import threading
import time
from collections.abc import Callable

import torch

BUDDY_INFO = "/proc/buddyinfo"
HUGE_PAGE_BYTES = 2 << 20
SMALL_PAGE_BYTES = mmap.PAGESIZE
PIECE_BYTES = 8 << 20
SMALLEST_BYTES = 8 << 20  # less comes from the allocator's heap
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; madvise(2)
USED_SHARE = 0.9  # of the free blocks: others allocate meanwhile
FIRST_PAUSE = 16
FORGETTING = 0.5

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
    """Chooses between huge and small pages for one piece after the other. Not thread-safe: its owner's lock guards it.

    At most *huge_pieces* are huge. Both kinds are tried; then the faster one is taken, and the other tried again after 16 pieces, after
    32 more, and so on, as long as it stays the slower one.
    """

    def __init__(self, huge_pieces: int) -> None:
        self._huge_left = huge_pieces
        self._seconds: dict[bool, float | None] = {True: None, False: None}
        self._untried = [False, True]
        self._faster = False
        self._pause = self._until_retry = FIRST_PAUSE

    def next_is_huge(self) -> bool:
        """The kind of the next piece."""
        if self._huge_left <= 0:
            return False
        if self._untried:
            huge = self._untried.pop()
        elif self._until_retry > 0:
            self._until_retry -= 1
            huge = self._faster
        else:
            self._pause *= 2
            self._until_retry = self._pause
            huge = not self._faster
        self._huge_left -= huge
        return huge

    def note(self, huge: bool, seconds: float) -> None:
        """What a piece of that kind took."""
        before = self._seconds[huge]
        self._seconds[huge] = seconds if before is None else FORGETTING * before + (1 - FORGETTING) * seconds
        of_huge, of_small = self._seconds[True], self._seconds[False]
        faster = of_huge is not None and (of_small is None or of_huge <= of_small)
        if faster is not self._faster:
            self._faster, self._pause, self._until_retry = faster, FIRST_PAUSE, FIRST_PAUSE


class FreshMemory:
    """*size_bytes* of zeroed private memory; ``tensor`` is all of it as bytes and keeps it alive. Never an inference tensor.

    It goes back to the system as soon as the last view of ``tensor`` is gone. Any thread may call :meth:`populate`. Raises ``MemoryError``.
    """

    def __init__(self, size_bytes: int, populate: Populate | None = None) -> None:
        """*populate(address, bytes)* brings pages in and tells whether it could; by default what the system offers."""
        self._mapping: mmap.mmap | None = None
        self._lock = threading.Lock()
        self._done = bytearray()
        self._populate = populate or _system_populate()
        with torch.inference_mode(False):
            if size_bytes < SMALLEST_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
                self.tensor = torch.empty(size_bytes, dtype=torch.uint8)
                return
            try:
                self._mapping = mmap.mmap(-1, size_bytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as error:
                raise MemoryError(f"the system has no {size_bytes} bytes of memory for weights ({error}); free a model") from error
            self._start = -torch.frombuffer(self._mapping, dtype=torch.uint8, count=1).data_ptr() % HUGE_PAGE_BYTES
            self.tensor = torch.frombuffer(self._mapping, dtype=torch.uint8, offset=self._start, count=size_bytes)
        self._done = bytearray(size_bytes // PIECE_BYTES)
        free_bytes = free_huge_bytes()
        self._sizes = PageSizes(len(self._done) if free_bytes is None else int(free_bytes * USED_SHARE) // PIECE_BYTES)

    def populate(self, first: int, stop: int) -> None:
        """Bring in the pieces that bytes *first* to *stop* lie in, unless that was done; what lies in them stays as it is."""
        for piece in range(first // PIECE_BYTES, min(len(self._done), -(-stop // PIECE_BYTES))):
            with self._lock:
                if self._done[piece]:
                    continue
                self._done[piece] = True
                huge = self._sizes.next_is_huge()
            began_s = time.perf_counter()
            offset = piece * PIECE_BYTES
            if huge and self._mapping is not None:
                self._mapping.madvise(mmap.MADV_HUGEPAGE, self._start + offset, PIECE_BYTES)
            if not self._populate(self.tensor.data_ptr() + offset, PIECE_BYTES):
                self._done = bytearray()
                return
            with self._lock:
                self._sizes.note(huge, time.perf_counter() - began_s)


def plain_memory(size_bytes: int) -> torch.Tensor:
    """Fresh memory as a byte tensor, whose pages come as they are touched. See :class:`FreshMemory`."""
    return FreshMemory(size_bytes).tensor


@functools.cache
def _system_populate() -> Populate:
    """The C library's ``madvise``: unlike the one of ``mmap`` it lets other threads run meanwhile."""
    if sys.platform != "linux":
        return lambda address, size_bytes: False
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return lambda address, size_bytes: madvise(address, size_bytes, POPULATE_WRITE) == 0
