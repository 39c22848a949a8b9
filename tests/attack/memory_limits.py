"""Giving a process little memory: a control group where one can be made, else a limit on its own data (Linux)."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

import pytest

_V1, _V2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
_RLIMIT_ROOM = 2


class MemoryGroup:
    """A memory control group, version 1 or 2. The constructor raises ``OSError`` where none can be made; ``remove`` ends it."""

    def __init__(self, limit_bytes: int) -> None:
        """Whoever is in the group may use *limit_bytes* in all, page cache included, and nothing is swapped out."""
        self._version = 1 if _V1.is_dir() else 2
        self._parent = _V1 if self._version == 1 else _V2
        self.folder = self._parent / f"keepwarm-attack-{os.getpid()}"
        self.folder.mkdir()
        try:
            self._file("memory.limit_in_bytes", "memory.max").write_text(str(limit_bytes))
        except OSError:
            self.folder.rmdir()
            raise
        with contextlib.suppress(OSError):  # not there where the kernel does not count swap
            self._file("memory.swappiness", "memory.swap.max").write_text("0")

    def add(self, pid: int) -> None:
        """Move process *pid* in; what it holds already stays counted where it was."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def python(self, python: str, script: pathlib.Path) -> str:
        """The path of a program that runs *python* inside the group from its first page on; it is written to *script*."""
        script.write_text(f'#!/bin/sh\necho $$ > "{self.folder}/cgroup.procs" || exit 1\nexec "{python}" "$@"\n')
        script.chmod(0o755)
        return str(script)

    @property
    def peak_bytes(self) -> int:
        """The most that was used at once, page cache included."""
        return int(self._file("memory.max_usage_in_bytes", "memory.peak").read_text())

    @property
    def held_bytes(self) -> int:
        """What is used now and cannot be reclaimed by dropping page cache."""
        names = ("total_rss", "total_shmem") if self._version == 1 else ("anon", "shmem")
        counts = _pairs(self.folder / "memory.stat")
        return sum(counts.get(name, 0) for name in names)

    @property
    def kills(self) -> int:
        """How many processes of the group the kernel killed for lack of memory."""
        return _pairs(self._file("memory.oom_control", "memory.events"))["oom_kill"]

    def remove(self) -> None:
        """Take the group away; whoever is still in it goes to the one above."""
        with contextlib.suppress(OSError):
            for pid in (self.folder / "cgroup.procs").read_text().split():
                (self._parent / "cgroup.procs").write_text(pid)
        for _ in range(100):  # the kernel may take a moment to see that the last process left
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.01)

    def _file(self, version_1: str, version_2: str) -> pathlib.Path:
        return self.folder / (version_1 if self._version == 1 else version_2)


def _pairs(path: pathlib.Path) -> dict[str, int]:
    return {name: int(count) for name, count in (line.split() for line in path.read_text().splitlines())}


@contextlib.contextmanager
def little_memory(pid: int, limit_bytes: int) -> Iterator[str]:
    """While entered, process *pid* may use *limit_bytes* in all; gives how that is seen to. Skips the test where nothing can be done.

    A control group kills the process that goes beyond; a limit on its data makes allocations fail, and is set generously because
    the server does not see it.
    """
    try:
        group = MemoryGroup(limit_bytes)
    except OSError:
        limit_data(pid, limit_bytes * _RLIMIT_ROOM)
        yield "RLIMIT_DATA"
        return
    try:
        group.add(pid)
        yield "control group"
    finally:
        group.remove()


def limit_data(pid: int, room_bytes: int) -> None:
    """Let process *pid* have *room_bytes* of memory of its own more than it has now; address space that threads only reserve is not
    counted."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs control groups or prlimit")
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        size_kib = next(int(line.split()[1]) for line in file if line.startswith("VmData:"))
    resource.prlimit(pid, resource.RLIMIT_DATA, (size_kib * 1024 + room_bytes,) * 2)
