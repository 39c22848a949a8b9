"""The two ways to the table of the RAM model cache: locked, and in use. Portable: standard library and the modules next to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from comfy.ram_model_cache.drops import DropQueue
from comfy.ram_model_cache.journal import Journal
from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.uses import Use
from comfy.ram_model_cache.values import Entry

log = logging.getLogger(__name__)


class TableAccess:
    """Owner of the lock that guards *table*. *keep_watch* is called, unlocked, whenever the table is not empty after a change."""

    def __init__(self, table: ModelTable, journal: Journal, drops: DropQueue, keep_watch: Callable[[], None]) -> None:
        self.lock = threading.Lock()
        self.table, self._journal, self._drops, self._keep_watch = table, journal, drops, keep_watch

    @contextmanager
    def changing(self) -> Iterator[ModelTable]:
        """The table, locked, with clones that died noted; afterwards, unlocked: log, have it watched, drop what may go."""
        lines: list[tuple[int, str]] = []
        holds_any = False
        try:
            with self.lock:
                self.table.drain()
                try:
                    yield self.table
                finally:
                    self.table.drain()
                    lines, holds_any = self._journal.take_lines(), bool(self.table.entries)
        finally:
            for level, line in lines:
                log.log(level, line)
            if holds_any:
                self._keep_watch()
            self._drops.flush()

    @contextmanager
    def using(self, find: Callable[[ModelTable], Entry | None]) -> Iterator[Use]:
        """A use, until the block ends, of the entry that *find* finds in the locked table; of none where it returns None."""
        use = Use()
        try:
            with self.changing() as table:
                entry = find(table)
                if entry is not None:
                    use.begin(entry)
            yield use
        finally:
            if use.entry is not None:
                with self.changing():
                    use.end()
