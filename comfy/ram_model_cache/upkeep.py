"""Looks after bases that nobody uses: original weights back once the last clone died, patched ones given up when memory is short.

Portable: standard library and the modules next to it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Hashable
from functools import partial

from comfy.ram_model_cache.access import TableAccess
from comfy.ram_model_cache.flights import Flights
from comfy.ram_model_cache.models import Patcher
from comfy.ram_model_cache.storage import own_patcher
from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.values import Entry, OwnerHooks, label_of
from comfy.units import megabytes

log = logging.getLogger(__name__)


class Upkeep:
    """Has the owner change modules, so it works on the thread that runs nodes only. Models that another thread loads are left alone."""

    def __init__(self, hooks: OwnerHooks, flights: Flights, access: TableAccess) -> None:
        self._hooks, self._flights = hooks, flights
        self._changing, self._using = access.changing, access.using

    def restore_due(self) -> bool:
        """Have the bases restored whose last clone died; whether there were any. One that cannot be is evicted."""
        with self._changing() as table:
            due = table.due_for_restore()
        for key in due:
            self._change(key, partial(_due, key), self._restore)
        return bool(due)

    def unpatch_idle(self, wanted_bytes: int, why: str) -> None:
        """Have patched weights that wait for an equal clone given up, of the least valuable model first, until *wanted_bytes* are free.

        The models themselves stay: patching them again takes seconds, reading them again more.
        """
        if wanted_bytes <= 0:
            return
        with self._changing() as table:
            idle = table.idle_keys()
        for key in idle:
            if wanted_bytes <= 0:
                break
            freed_bytes = self._change(key, partial(_idle, key), self._hooks.unpatch_base)
            if freed_bytes > 0:
                wanted_bytes -= freed_bytes
                log.info("RAM model cache: patched weights of %s given up (%s): %s", label_of(key), megabytes(freed_bytes), why)

    def _restore(self, patcher: Patcher) -> bool:
        self._hooks.restore_base(patcher)
        return True

    def _change(self, key: Hashable, find: Callable[[ModelTable], Entry | None], change: Callable[[Patcher], bool]) -> int:
        """Have *change* work on the base under *key*, if *find* still finds it and no other thread has it; returns the bytes freed.

        *change* tells whether it did anything. When it raises, the entry is evicted.
        """
        with self._flights.if_free(key) as alone:
            if not alone:
                return 0
            with self._using(find) as use:
                entry, storages, changed = use.entry, None, True
                if entry is None:
                    return 0
                before_bytes = entry.size_bytes
                try:
                    changed = change(own_patcher(use.value))
                    storages = self._hooks.measure(own_patcher(use.value)) if changed else None
                except Exception:
                    # As text: a record that kept the exception would keep its frames, and with them the model.
                    reason = traceback.format_exc()
                    log.error("RAM model cache: %s could not be restored to its original weights and is dropped\n%s", entry.label, reason)
                finally:
                    with self._changing() as table:
                        use.end()
                        if changed:
                            table.restored(entry, storages)
                return before_bytes - entry.size_bytes if changed and storages is not None else 0


def _due(key: Hashable, table: ModelTable) -> Entry | None:
    """The entry under *key* if its last clone has died."""
    return table.entries.get(key) if key in table.due_for_restore() else None


def _idle(key: Hashable, table: ModelTable) -> Entry | None:
    """The entry under *key* if it is kept and nobody uses it."""
    entry = table.kept(key)
    return None if entry is None or entry.in_use else entry
