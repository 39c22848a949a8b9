"""How much host RAM this process may still use: the smaller of what the system and what its control group have left.

In a container the system's figures are the whole machine's, while the kernel kills by the control group's limit. Page cache that can be
given up at once counts as available in both views. Files read: ``memory.max``/``memory.high``/``memory.current``/``memory.stat``
(cgroup v2) and ``memory.limit_in_bytes``/``memory.usage_in_bytes``/``memory.stat`` (v1), of the process's group and every group above
it; format: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. Portable: standard library and psutil.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from comfy.units import GIB

UNLIMITED_BYTES = 1 << 60
LONGEST_FILE_BYTES = 1 << 16
MIN_HEADROOM_BYTES = 2 * GIB
HEADROOM_SHARE = 0.05
AUTO_CAP_ABOVE_BYTES = 64 * GIB
AUTO_CAP_SHARE = 0.25
AUTO_CAP_MAX_BYTES = 32 * GIB


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Bytes in all and bytes that can still be allocated, as one party sees them."""

    total_bytes: int
    available_bytes: int


def system_view() -> MemoryView:
    """What the operating system reports; on Linux ``MemAvailable``, which counts reclaimable page cache as available."""
    import psutil

    memory = psutil.virtual_memory()
    return MemoryView(memory.total, memory.available)


class HostMemory:
    """The host memory of this process. *root* replaces ``/`` and *system* the operating system's view, in tests.

    Reads small kernel files at every call and keeps nothing, so a changed limit is seen. Any thread; blocks for some 50 µs. Every
    operation of the cache asks, so files are named by plain text and read by one call each.
    """

    def __init__(self, root: str | Path = "/", system: Callable[[], MemoryView] = system_view) -> None:
        self._own_groups = os.path.join(root, "proc/self/cgroup")
        self._mounted = os.path.join(root, "sys/fs/cgroup")
        self._system = system

    def view(self) -> MemoryView:
        """The tightest total and the tightest availability over the system and every limiting control group."""
        views = [self._system(), *self.group_views()]
        return MemoryView(min(view.total_bytes for view in views), min(view.available_bytes for view in views))

    def available_bytes(self) -> int:
        """Bytes this process can still allocate before the system swaps or the control group kills."""
        return self.view().available_bytes

    def total_bytes(self) -> int:
        """Bytes this process could ever use."""
        return self.view().total_bytes

    def group_views(self) -> list[MemoryView]:
        """One view per control group, from the process's own upwards, that sets a limit; empty where there is none."""
        found = []
        for folder, version in self._groups():
            view = _group_v2(folder) if version == 2 else _group_v1(folder)
            if view is not None:
                found.append(view)
        return found

    def _groups(self) -> Iterator[tuple[str, int]]:
        """(folder, version) of the process's memory control groups, each followed by those above it."""
        for line in _text(self._own_groups).splitlines():
            number, controllers, path = (line.split(":", 2) + ["", ""])[:3]
            if number == "0" and not controllers:
                yield from ((folder, 2) for folder in _upwards(self._mounted, path))
            elif "memory" in controllers.split(","):
                yield from ((folder, 1) for folder in _upwards(f"{self._mounted}/memory", path))


def default_headroom_bytes(total_bytes: int) -> int:
    """RAM to leave free for everything else: 5 % of it, at least 2 GiB."""
    return max(MIN_HEADROOM_BYTES, int(total_bytes * HEADROOM_SHARE))


def auto_cap_bytes(available_bytes: int) -> int:
    """The model cache's size where none was asked for: a quarter of the free RAM, at most 32 GiB; 0 with 64 GiB free or less."""
    if available_bytes <= AUTO_CAP_ABOVE_BYTES:
        return 0
    return min(int(available_bytes * AUTO_CAP_SHARE), AUTO_CAP_MAX_BYTES)


def return_freed_memory() -> bool:
    """Have glibc give freed memory back to the system (``malloc_trim``); whether there was any. Does nothing elsewhere."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim(0)) if trim is not None else False


def _upwards(mounted: str, path: str) -> list[str]:
    """The group *path* below the mount point and its ancestors; a path from outside the container is the mount point itself."""
    parts = [part for part in path.split("/") if part]
    if ".." in parts or (parts and not os.path.isdir("/".join([mounted, *parts]))):
        parts = []
    return ["/".join([mounted, *parts[:count]]) for count in range(len(parts), -1, -1)]


def _group_v2(folder: str) -> MemoryView | None:
    limits = [limit for name in ("memory.max", "memory.high") if (limit := _limit(f"{folder}/{name}")) is not None]
    used_bytes = _number(_text(f"{folder}/memory.current")) if limits else None
    if used_bytes is None:
        return None
    stat = _statistics(f"{folder}/memory.stat")
    reclaimable = stat.get("inactive_file", 0) + stat.get("active_file", 0) + stat.get("slab_reclaimable", 0)
    return _left(min(limits), used_bytes, reclaimable - stat.get("file_dirty", 0) - stat.get("file_writeback", 0))


def _group_v1(folder: str) -> MemoryView | None:
    limit_bytes = _limit(f"{folder}/memory.limit_in_bytes")
    used_bytes = _number(_text(f"{folder}/memory.usage_in_bytes")) if limit_bytes is not None else None
    if limit_bytes is None or used_bytes is None:
        return None
    stat = _statistics(f"{folder}/memory.stat")
    reclaimable = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    return _left(limit_bytes, used_bytes, reclaimable - stat.get("total_dirty", 0) - stat.get("total_writeback", 0))


def _left(limit_bytes: int, used_bytes: int, reclaimable_bytes: int) -> MemoryView:
    held_bytes = used_bytes - min(max(0, reclaimable_bytes), used_bytes)
    return MemoryView(limit_bytes, max(0, limit_bytes - held_bytes))


def _limit(path: str) -> int | None:
    """The limit in a file, None for "max", for v1's huge number, or when there is no such file."""
    limit_bytes = _number(_text(path))
    return None if limit_bytes is None or limit_bytes >= UNLIMITED_BYTES else limit_bytes


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _statistics(path: str) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _text(path: str) -> str:
    """What a kernel file says, up to *LONGEST_FILE_BYTES*; empty when it is not there or may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, LONGEST_FILE_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
