"""Lets a thread stand back behind all others, for the processor and for the disk, and come forward again."""

import contextlib
import ctypes
import functools
import os
import platform
import sys
import threading

LOWEST_NICENESS = 19
IOPRIO_WHO_PROCESS, IOPRIO_NONE, IOPRIO_IDLE = 1, 0, 3 << 13  # Linux, include/uapi/linux/ioprio.h
IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}  # the number of the system call, by machine


def stand_back() -> None:
    """Give the calling thread the lowest priority; without privileges no thread can raise its own for the processor again.

    Linux only, where both belong to the thread; elsewhere, or where the system refuses, nothing happens.
    """
    _set_priority(threading.get_native_id(), LOWEST_NICENESS, IOPRIO_IDLE)


def come_forward(thread: int) -> None:
    """Give *thread* (a native id) the caller's priority for the processor, where the system allows that, and the usual one for the disk."""
    niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform.startswith("linux") else 0
    _set_priority(thread, niceness, IOPRIO_NONE)


def _set_priority(thread: int, niceness: int, disk_class: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        _syscall()(number, IOPRIO_WHO_PROCESS, thread, disk_class)


@functools.cache
def _syscall() -> "ctypes._NamedFuncPointer":
    return ctypes.CDLL(None).syscall
