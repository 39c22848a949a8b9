"""Lets a thread stand back behind all others, for the processor and for the disk."""

import contextlib
import ctypes
import functools
import os
import platform
import sys
import threading

LOWEST_NICENESS = 19
IOPRIO_WHO_PROCESS, IOPRIO_IDLE = 1, 3 << 13  # Linux, include/uapi/linux/ioprio.h
IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}  # the number of the system call, by machine


def stand_back() -> None:
    """Give the calling thread the lowest priority, for good: without privileges no thread can raise its own again.

    Linux only, where both belong to the thread; elsewhere, or where the system refuses, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_NICENESS)
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        _syscall()(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE)


@functools.cache
def _syscall() -> "ctypes._NamedFuncPointer":
    return ctypes.CDLL(None).syscall
