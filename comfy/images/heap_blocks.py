"""Memory of freed activations, which goes back to the system while a video is made of its latent on the CPU."""

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator

import torch

from comfy.units import MIB

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
BLOCK_BYTES = 8 * MIB  # from this size on a block is a mapping of its own
USUAL_BYTES = 32 * MIB  # the largest that glibc moves its threshold to by itself
OF_THE_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")  # mallopt(3): who sets one of these has chosen


class BlockSizes:
    """How large a block of its own is, in the whole process. *set_option*: glibc's ``mallopt``, None where there is none."""

    def __init__(self, set_option: Callable[[int, int], int] | None) -> None:
        self._set_option = set_option
        self._lock = threading.Lock()
        self._users = 0

    @contextlib.contextmanager
    def returned_at_once(self) -> Iterator[None]:
        """Inside, blocks from ``BLOCK_BYTES`` on are mappings of their own; nested and in several threads as well."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            before, self._users = self._users, self._users + change
            if self._set_option is not None and bool(before) is not bool(self._users):
                size_bytes = BLOCK_BYTES if self._users else USUAL_BYTES
                self._set_option(MMAP_THRESHOLD, size_bytes)
                self._set_option(TRIM_THRESHOLD, 2 * size_bytes)


@functools.cache
def _block_sizes() -> BlockSizes:
    """The process's own."""
    library = ctypes.CDLL(None) if sys.platform == "linux" and not any(name in os.environ for name in OF_THE_USER) else None
    is_glibc = library is not None and hasattr(library, "gnu_get_libc_version")
    return BlockSizes(getattr(library, "mallopt", None) if is_glibc else None)


def activations_on(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """For layers of videos: inside, blocks of 8 MiB or more of host memory go back to the system when they are freed, by any thread.

    glibc takes blocks below 32 MiB from its heap once some were freed, and a heap keeps what lies below a block in use: decoding a video
    whose frames go through the layers in pieces held up to 0.4 GB that nothing used. Pages of new blocks are brought in each time, so this
    is for layers that compute long on each block. Nothing changes where *device* is none of the host's, with other C libraries, and
    where the environment sets glibc's thresholds.
    """
    return _block_sizes().returned_at_once() if device.type == "cpu" else contextlib.nullcontext()
