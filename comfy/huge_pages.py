"""Asking for huge pages only where the system has some ready.

Huge pages make first touches of large memory several times as fast. But when a system with ``defrag=madvise``, the usual setting, has no
free block of the size, every touch of advised memory waits while the kernel compacts memory: seven times as slow as small pages was
measured, with the page cache full of model files. So only as much is advised as lies in free blocks; the rest gets small pages.
"""

import mmap

BUDDY_INFO = "/proc/buddyinfo"
HUGE_PAGE_BYTES = 2 << 20
SMALL_PAGE_BYTES = mmap.PAGESIZE
USED_SHARE = 0.9  # others allocate meanwhile


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


def advise_huge_pages(mapping: mmap.mmap, start: int, size_bytes: int) -> int:
    """Ask for huge pages from *start* (on a small page) in *mapping*, for up to *size_bytes*; returns for how many that was done."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return 0
    free_bytes = free_huge_bytes()
    if free_bytes is not None:
        size_bytes = min(size_bytes, int(free_bytes * USED_SHARE))
    size_bytes -= size_bytes % HUGE_PAGE_BYTES
    if size_bytes:
        mapping.madvise(mmap.MADV_HUGEPAGE, start, size_bytes)
    return size_bytes
