"""Which files gain from being read side by side: those on disks that do not have to move a head between them."""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack


class DiskTurns:
    """Lets one reader at a time at each rotating disk, and any number at others. Any thread; *root* replaces ``/`` in tests."""

    def __init__(self, root: str = "/") -> None:
        self._blocks = os.path.join(root, "sys/dev/block")
        self._lock = threading.Lock()
        self._turns: dict[int, threading.Lock] = {}

    @contextlib.contextmanager
    def turn(self, paths: Iterable[str]) -> Iterator[None]:
        """A block in which nobody else reads the rotating disks that *paths* lie on; waits for it."""
        with ExitStack() as turns:
            for device in sorted({device for path in paths if (device := _device(path)) is not None}):
                if self.is_rotating(device):
                    with self._lock:
                        turn = self._turns.setdefault(device, threading.Lock())
                    turns.enter_context(turn)
            yield

    def is_rotating(self, device: int) -> bool:
        """Whether *device* (``st_dev``) says that it is a rotating disk. Networks, memory and whatever says nothing are not."""
        disk = os.path.realpath(os.path.join(self._blocks, f"{os.major(device)}:{os.minor(device)}"))
        for folder in (disk, os.path.dirname(disk)):  # a partition's own folder lies in that of its disk
            with contextlib.suppress(OSError), open(os.path.join(folder, "queue", "rotational"), encoding="ascii") as file:
                return file.read().strip() == "1"
        return False


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
