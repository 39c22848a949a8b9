"""Reads of a file past the system's page cache, for what is not in it.

A read through the cache takes fresh pages from the system, copies out of them and, as weights are not to be in memory twice, gives them
back: that took as long again as the disk did (8 MB reads by four threads on a virtual disk: 1.7 GB/s past the cache, 1.2 GB/s through it,
0.9 GB/s when the pages are dropped). Linux; positions, lengths and addresses are multiples of a block, so such reads go to a buffer, and
copying out of it takes half of what is gained, or straight to memory that lies in its pages as the file does.
"""

import contextlib
import errno
import mmap
import os
import threading

import numpy

from comfy.weight_files.fresh_memory import HUGE_PAGE_BYTES

BLOCK_BYTES = 4096  # a multiple of what any disk asks for
REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


class DirectReads:
    """Reads of the file at *path*, which is open as *file*, each of at most *longest_bytes*; any thread. Close it.

    Where the system or the file system has no such reads, ``read`` says so once and for all; where another file is at *path* by now,
    there are none.
    """

    def __init__(self, path: str, file: int, longest_bytes: int) -> None:
        self._buffers = threading.local()
        self._buffer_bytes = longest_bytes + 2 * BLOCK_BYTES
        self._file = -1
        self._refused = False
        if hasattr(os, "O_DIRECT") and hasattr(os, "preadv"):
            try:
                self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            except OSError as error:
                if error.errno not in (*REFUSALS, errno.ENOENT):
                    raise
        if self._file >= 0 and not os.path.samestat(os.fstat(self._file), os.fstat(file)):
            self.close()

    @property
    def are_possible(self) -> bool:
        """Whether nothing has refused yet."""
        return self._file >= 0 and not self._refused

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def read(self, start: int, stop: int) -> memoryview | None:
        """Bytes *start* to *stop* of the file, fewer where it ends before; valid until this thread reads again.

        None where such reads are refused. Raises ``OSError`` where the disk fails.
        """
        first = start - start % BLOCK_BYTES
        buffer = self._buffer()[: -(-(stop - first) // BLOCK_BYTES) * BLOCK_BYTES]
        count = self.read_into(buffer, start, stop)
        return None if count is None else buffer[start - first : start - first + count]

    def read_into(self, blocks: memoryview, start: int, stop: int) -> int | None:
        """Fill *blocks*, whole ones at the address of a block's beginning, from the beginning of the file's block that *start* is in.

        Returns how many of the bytes *start* to *stop* are there now, fewer where the file ends before; None and raises as :meth:`read`.
        """
        first, count = start - start % BLOCK_BYTES, 0
        while count < stop - first:
            try:
                got = os.preadv(self._file, [blocks[count:]], first + count)
            except OSError as error:
                if error.errno not in REFUSALS:
                    raise
                self._refused = True
                return None
            count += got
            if got == 0 or count % BLOCK_BYTES:  # the end of the file
                break
        return max(0, min(count, stop - first) - (start - first))

    def _buffer(self) -> memoryview:
        """This thread's, at a page's beginning; in huge pages where there are some, as a disk writes into small ones one by one."""
        if not hasattr(self._buffers, "view"):
            mapping = mmap.mmap(-1, self._buffer_bytes + HUGE_PAGE_BYTES)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # a kernel without
                    mapping.madvise(mmap.MADV_HUGEPAGE)
            begin = -numpy.frombuffer(mapping, numpy.uint8).ctypes.data % HUGE_PAGE_BYTES
            self._buffers.view = memoryview(mapping)[begin : begin + self._buffer_bytes]
        view: memoryview = self._buffers.view
        return view
