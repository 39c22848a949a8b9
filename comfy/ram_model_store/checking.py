"""Whether the weights of a stored part are still those that were stored: sums of their bytes, compared in the background.

Nobody waits for it: mapping takes a fraction of the time that looking at every byte takes. What it finds is damage by faulty memory or by
another program of this user, not an attack, so sums do. The file is read, not mapped: what this process wrote into its own pages does not
count, and a file that is cut off meanwhile ends the check, not the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.ram_model_store.folder import StoreFolder, StoreRefused
from comfy.ram_model_store.part_format import SUM_BYTES, Block, PartTable

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
log = logging.getLogger(__name__)


def sums_of(memory: Tensor) -> tuple[int, ...]:
    """The sums of each ``SUM_BYTES`` of *memory*, bytes whose number is a multiple of 8; see :class:`Block`."""
    with torch.inference_mode(False):
        return tuple(int(piece.view(torch.int64).sum()) for piece in memory.split(SUM_BYTES))


@dataclass(frozen=True, slots=True)
class Due:
    """A part to be looked at: the file *name* with this *inode*, its *table*, and who is told what is wrong."""

    name: str
    inode: int
    table: PartTable
    damaged: Callable[[str], None]


def _start_daemon(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="store-check", daemon=True).start()


class Checker:
    """Looks at parts in *folder*, each file once, one after the other in a thread that lives as long as there are some. Any thread."""

    def __init__(self, folder: StoreFolder, start_thread: Callable[[Callable[[], None]], None] = _start_daemon) -> None:
        self._folder, self.start_thread = folder, start_thread
        self._lock = threading.Lock()
        self._waiting: deque[Due] = deque()
        self._seen: set[tuple[str, int]] = set()
        self._runs = False

    def add(self, due: Due) -> None:
        """Look at *due* soon, unless that was done before."""
        with self._lock:
            place = (due.name, due.inode)
            if place in self._seen:
                return
            self._seen.add(place)
            self._waiting.append(due)
            starts, self._runs = not self._runs, True
        if starts:
            self.start_thread(self._work_off)

    def _work_off(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._runs = False
                    return
                due = self._waiting.popleft()
            wrong = self._what_is_wrong(due)
            if wrong:
                try:
                    due.damaged(wrong)
                except (OSError, StoreRefused) as error:
                    log.warning("RAM model store: %s is damaged and could not be removed: %s", due.name, error)

    def _what_is_wrong(self, due: Due) -> str:
        """In words; "" for a part that is as it was stored, or has left the store."""
        with contextlib.suppress(OSError, StoreRefused):
            with self._folder.opened() as folder:
                descriptor = folder.open(due.name, os.O_RDONLY)
            try:
                if os.fstat(descriptor).st_ino == due.inode:
                    return next(filter(None, (_damage(descriptor, block) for block in due.table.blocks)), "")
            finally:
                os.close(descriptor)
        return ""


def _damage(descriptor: int, block: Block) -> str:
    """What is wrong with *block* of the open file; "" if nothing is. Raises ``OSError``."""
    buffer = bytearray(min(SUM_BYTES, block.pages_bytes()))
    for number, expected in enumerate(block.sums):
        start = block.start + number * SUM_BYTES
        view = memoryview(buffer)[: min(SUM_BYTES, block.start + block.pages_bytes() - start)]
        if _read_into(descriptor, view, start) < len(view):
            return "the file ends too early"
        if sums_of(torch.frombuffer(view, dtype=torch.uint8)) != (expected,):
            return f"bytes {start} to {start + len(view)}"
    return ""


def _read_into(descriptor: int, view: memoryview, start: int) -> int:
    """Fill *view* from byte *start* of the file; how much there was."""
    done = 0
    while done < len(view) and (count := os.preadv(descriptor, [view[done:]], start + done)):
        done += count
    return done
