"""How much memory this process may still take: what the machine has left, or its control group where that is less (Linux).

And taking it without stopping other threads.
"""

import mmap
import pathlib
from collections.abc import Iterator

import psutil

_NO_LIMIT_BYTES = 1 << 60
# Per version of control groups: its limit, what is used, and which lines of memory.stat are page cache that can be given up.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    2: ("memory.max", "memory.current", ("inactive_file", "active_file")),
}


def free_bytes(root: str = "/") -> int:
    """Bytes that can still be allocated. Reads small kernel files below *root* at each call; blocks for some 50 µs."""
    return min([psutil.virtual_memory().available, *_left_in_groups(pathlib.Path(root))])


def fresh_memory(size: int) -> memoryview:
    """*size* writable bytes, zero. Raises ``MemoryError``.

    Unlike a ``bytearray`` its pages are cleared when they are first written to, which, where that is done by a read, stops nobody.
    """
    if size < mmap.PAGESIZE:
        return memoryview(bytearray(size))
    try:
        return memoryview(mmap.mmap(-1, size))
    except OSError as error:
        raise MemoryError(str(error)) from None


def _left_in_groups(root: pathlib.Path) -> Iterator[int]:
    """What each limited control group that the process is in has left."""
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (line + "::").split(":")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (1, mounted / "memory") if controllers else (2, mounted)
        group = top / path.strip("/")
        for folder in [group, *group.parents] if group.is_dir() else [top]:
            if folder.is_relative_to(top):
                yield from _left(folder, *_FILES[version])


def _left(folder: pathlib.Path, limit_name: str, used_name: str, cache_names: tuple[str, ...]) -> Iterator[int]:
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if limit.isdigit() and used.isdigit() and int(limit) < _NO_LIMIT_BYTES:
        lines = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
        cached = sum(int(lines.get(name, "0")) for name in cache_names)
        yield max(0, int(limit) - max(0, int(used) - cached))


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
