"""Giving a process little memory: a control group where one can be made, else a limit on its own data (Linux)."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

_V1, _V2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
_RLIMIT_ROOM = 2


@contextlib.contextmanager
def little_memory(pid: int, limit_bytes: int) -> Iterator[str]:
    """While entered, process *pid* may use *limit_bytes* in all; gives how that is seen to. Skips the test where nothing can be done.

    A control group kills the process that goes beyond; a limit on its data makes allocations fail, and is set generously because
    the server does not see it.
    """
    parent, limit_name = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    group = parent / f"keepwarm-attack-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit_name).write_text(str(limit_bytes))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        limit_data(pid, limit_bytes * _RLIMIT_ROOM)
        yield "RLIMIT_DATA"
        return
    try:
        yield "control group"
    finally:
        with contextlib.suppress(OSError):
            (parent / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            group.rmdir()


def limit_data(pid: int, room_bytes: int) -> None:
    """Let process *pid* have *room_bytes* of memory of its own more than it has now; address space that threads only reserve is not
    counted."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs control groups or prlimit")
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        size_kib = next(int(line.split()[1]) for line in file if line.startswith("VmData:"))
    resource.prlimit(pid, resource.RLIMIT_DATA, (size_kib * 1024 + room_bytes,) * 2)
