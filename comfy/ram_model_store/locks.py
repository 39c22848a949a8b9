"""Locks between processes: ranges of one file, freed by the death of who holds them. Linux; imports no torch.

These are locks of open file descriptions (``F_OFD_SETLK``, fcntl(2)), so threads of one process exclude each other as well, and closing
some other descriptor of the file frees nothing. No lock file is ever made per part, so none can be left over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator

from comfy.lazy_import import lazy_module
from comfy.ram_model_store.folder import StoreFolder

fcntl = lazy_module("fcntl")  # Windows has none
NAME = "locks"
BOOKS_BYTE = 0
FIRST_PART_BYTE = 1
BOOKS_WAIT_S = 20.0
SHORT_PAUSE_S, LONG_PAUSE_S = 0.002, 0.05
RANGE = struct.Struct("hhqqi4x")  # struct flock
OFD_SETLK = 37  # F_OFD_SETLK of Linux, which older Pythons do not name


class StoreBusy(RuntimeError):
    """The books of the store were not to be had for long; the caller goes on without it."""


class HeldLock:
    """A lock on one byte of the file; :meth:`release` ends it, as does the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def try_lock(folder: StoreFolder, byte: int) -> HeldLock | None:
    """The lock on *byte* of the file of locks; None while somebody else holds it. Raises ``StoreRefused`` and ``OSError``."""
    with folder.opened() as opened:
        descriptor = opened.open(NAME, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(descriptor, OFD_SETLK, RANGE.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return HeldLock(descriptor)


def lock(folder: StoreFolder, byte: int, check: Callable[[], None], timeout_s: float | None = None) -> HeldLock | None:
    """The lock on *byte*, waited for; None after *timeout_s*. *check* is called many times a second, and may raise."""
    began_s, pause_s = time.monotonic(), SHORT_PAUSE_S
    while (held := try_lock(folder, byte)) is None:
        check()
        if timeout_s is not None and time.monotonic() - began_s > timeout_s:
            return None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONG_PAUSE_S)
    return held


@contextlib.contextmanager
def books(folder: StoreFolder, timeout_s: float = BOOKS_WAIT_S) -> Iterator[None]:
    """Alone with what lies in the store, and what is to be written down, for moments. Raises :class:`StoreBusy`."""
    held = lock(folder, BOOKS_BYTE, lambda: None, timeout_s)
    if held is None:
        raise StoreBusy(f"another process has kept {folder.path} locked for {timeout_s:.0f} s")
    try:
        yield
    finally:
        held.release()


def byte_of(name: str) -> int:
    """The byte that stands for the part *name*."""
    return FIRST_PART_BYTE + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little")
