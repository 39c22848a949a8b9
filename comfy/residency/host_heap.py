"""Host memory of freed activations: what the C library's heap does with it while layers compute on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from comfy.units import MIB

if TYPE_CHECKING:
    import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
USUAL_BYTES = 32 * MIB  # the largest size that glibc moves its threshold to by itself
OF_THE_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")  # mallopt(3): who sets one of these has chosen


class Freed(enum.Enum):
    """What becomes of freed memory: from which size on a block is a mapping of its own, and how much of the heap's end stays unused."""

    RETURNED = (8 * MIB, 16 * MIB)
    KEPT = (USUAL_BYTES, 4 * USUAL_BYTES)
    USUAL = (USUAL_BYTES, 2 * USUAL_BYTES)


class HostHeap:
    """glibc's heap, for the whole process. *set_option*: its ``mallopt``, None where there is none."""

    def __init__(self, set_option: Callable[[int, int], int] | None) -> None:
        self._set_option = set_option
        self._lock = threading.Lock()
        self._users: Counter[Freed] = Counter()
        self._current = Freed.USUAL

    @contextlib.contextmanager
    def treats(self, freed: Freed) -> Iterator[None]:
        """Inside, freed blocks are treated so; nested and in several threads as well, where returning memory comes before keeping it."""
        self._count(freed, 1)
        try:
            yield
        finally:
            self._count(freed, -1)

    def _count(self, freed: Freed, change: int) -> None:
        with self._lock:
            self._users[freed] += change
            wanted = next((one for one in Freed if self._users[one]), Freed.USUAL)
            if wanted is not self._current:
                self._current = wanted
                if self._set_option is not None:
                    for option, size_bytes in zip((MMAP_THRESHOLD, TRIM_THRESHOLD), wanted.value, strict=True):
                        self._set_option(option, size_bytes)


@functools.cache
def _host_heap() -> HostHeap:
    """The process's own."""
    library = ctypes.CDLL(None) if sys.platform == "linux" and not any(name in os.environ for name in OF_THE_USER) else None
    is_glibc = library is not None and hasattr(library, "gnu_get_libc_version")
    return HostHeap(getattr(library, "mallopt", None) if is_glibc else None)


def activations_returned(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """For layers of videos: inside, blocks of 8 MiB or more of host memory go back to the system when they are freed, by any thread.

    glibc takes blocks below 32 MiB from its heap once some were freed, and a heap keeps what lies below a block in use: decoding a video
    whose frames go through the layers in pieces held up to 0.4 GB that nothing used. Pages of new blocks are brought in each time, so this
    is for layers that compute long on each block. Nothing changes where *device* is none of the host's, with other C libraries, and
    where the environment sets glibc's thresholds.
    """
    return _host_heap().treats(Freed.RETURNED) if device.type == "cpu" else contextlib.nullcontext()


def activations_kept(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """For steps of a sampler: inside, up to 128 MiB of the heap's end stay in the process for the next blocks of host memory.

    By itself glibc gives back what exceeds 64 MiB there, and brings it in again for the next layer: 0.2 GB of a step of Flux.1. Nothing
    changes where :func:`activations_returned` changes nothing.
    """
    return _host_heap().treats(Freed.KEPT) if device.type == "cpu" else contextlib.nullcontext()
