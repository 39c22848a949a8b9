"""Has the system fetch what is read next from the disk, in small pages.

By itself it reads ahead in pages as large as it can get. On a virtual machine that hands its large free blocks to its host those are the
dear ones, as they are for fresh memory (:mod:`comfy.weight_files.fresh_memory`): a load that read 2.3 GB and cast them took 3.0 to 4.3 s
of the system's time in large pages, 1.8 to 2.1 s in small ones (three of each in turn). What is asked for comes in small ones. Linux;
elsewhere nothing is done.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from comfy.weight_files.page_cache import cached_pages, can_drop_pages


@contextmanager
def fetched_as_asked(file: int) -> Iterator[None]:
    """Meanwhile the system fetches of the open *file* what :func:`fetch` and reads ask for, and nothing beyond."""
    if not can_drop_pages():
        yield
        return
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        yield
    finally:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_NORMAL)


def fetch(file: int, start: int, stop: int) -> None:
    """Begin to fetch bytes *start* to *stop* of the open *file*, unless the page in their middle is there; waits for nothing."""
    middle = (start + stop) // 2
    if can_drop_pages() and cached_pages(file, middle + 1, middle) != 1:
        os.posix_fadvise(file, start, stop - start, os.POSIX_FADV_WILLNEED)
