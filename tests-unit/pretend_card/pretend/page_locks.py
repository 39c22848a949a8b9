"""Page-locking of host memory, as CUDA's runtime does and refuses it."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Any

DONE, NO_MEMORY, TAKEN, UNKNOWN = 0, 2, 712, 713


class PageLocks:
    """Ranges of host addresses that are registered. ``fails(address, bytes)`` makes a registration fail. Any thread."""

    def __init__(self) -> None:
        self.ranges: dict[int, int] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.fails: Callable[[int, int], bool] | None = None
        self._lock = threading.Lock()

    def register(self, address: int, size_bytes: int) -> int:
        """CUDA's error number: memory cannot be registered twice, not even in part."""
        with self._lock:
            self.counts["register"] += 1
            if self.fails is not None and self.fails(address, size_bytes):
                self.counts["failed"] += 1
                return NO_MEMORY
            if any(start < address + size_bytes and address < start + size for start, size in self.ranges.items()):
                self.counts["registered twice"] += 1
                return TAKEN
            self.ranges[address] = size_bytes
            return DONE

    def unregister(self, address: int) -> int:
        """CUDA's error number: only what begins a registered range can be given back."""
        with self._lock:
            self.counts["unregister"] += 1
            if self.ranges.pop(address, None) is None:
                self.counts["unknown given back"] += 1
                return UNKNOWN
            return DONE

    def covers(self, address: int, size_bytes: int) -> bool:
        """Whether the memory lies in one registered range."""
        with self._lock:
            return any(start <= address and address + size_bytes <= start + size for start, size in self.ranges.items())

    def faults(self) -> list[str]:
        """What no correct program does."""
        wrong = [f"{self.counts[kind]} ranges {kind}" for kind in ("registered twice", "unknown given back") if self.counts[kind]]
        return wrong


class Runtime:
    """What ``torch.cuda.cudart()`` returns."""

    def __init__(self, locks: PageLocks, mem_get_info: Callable[[Any], tuple[int, int]]) -> None:
        self._locks, self._mem_get_info = locks, mem_get_info

    def cudaHostRegister(self, address: int, size_bytes: int, flags: int) -> int:  # noqa: N802 - CUDA's name
        return self._locks.register(address, size_bytes)

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 - CUDA's name
        return self._locks.unregister(address)

    def cudaMemGetInfo(self, device: Any) -> tuple[int, int]:  # noqa: N802 - CUDA's name
        return self._mem_get_info(device)
