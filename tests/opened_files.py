"""Which files are opened while a block runs, by whichever process; mapped and read files alike (inotify, Linux)."""

import contextlib
import ctypes
import os
import struct

IN_OPEN = 0x20


@contextlib.contextmanager
def opened_files(*folders):
    """Gives a list that holds, after the block, the names of the files in *folders* that were opened in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    names = []
    try:
        for folder in folders:
            if libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")
        yield names
        with contextlib.suppress(BlockingIOError):
            while events := os.read(watch, 1 << 16):
                names += _names(events)
    finally:
        os.close(watch)


def _names(events):
    """The file names in what inotify wrote; folders that were opened have none."""
    found, at = [], 0
    while at < len(events):
        _, mask, _, length = struct.unpack_from("iIII", events, at)
        name = events[at + 16 : at + 16 + length].rstrip(b"\0")
        if name and mask & IN_OPEN:
            found.append(os.fsdecode(name))
        at += 16 + length
    return found
