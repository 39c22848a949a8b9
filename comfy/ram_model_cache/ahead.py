"""Models that are read before their loader asks. Portable: standard library and the modules next to it.

Inside a block of :class:`AheadLoads` what a thread fetches is read ahead: nothing is evicted for it, no request is counted, and what was
read stays LENT, held here, until its loader asks. That request then decides about its place, as it would have without reading ahead; so
the same models are kept, only the read has been done before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfy.ram_model_cache.access import TableAccess
from comfy.ram_model_cache.drops import DropQueue
from comfy.ram_model_cache.flights import Flights
from comfy.ram_model_cache.storage import hand_out, own_patcher, patcher_of
from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.values import Loaded, OwnerHooks, as_loaded

Load = Callable[[list[Hashable]], Mapping[Hashable, Any]]
Estimate = int | Callable[[], int]


class NotAhead(Exception):
    """Nothing is read ahead; the text says why. Ends the loader that was called for it."""


class AheadBlock:
    """One load ahead: the keys it asked for, whether it may take room beyond the cap, and what raises when it is not wanted any more."""

    def __init__(self, beyond_cap: bool, raise_if_stopped: Callable[[], None]) -> None:
        self.beyond_cap, self.raise_if_stopped = beyond_cap, raise_if_stopped
        self.keys: set[Hashable] = set()


class AheadLoads:
    """Blocks of threads that read ahead, and what they have read. Its lock is a leaf. Any thread may call any method."""

    def __init__(self, hooks: OwnerHooks, flights: Flights, drops: DropQueue, access: TableAccess, clock: Callable[[], float]) -> None:
        self._hooks, self._flights, self._drops, self._access = hooks, flights, drops, access
        self._clock = clock
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, Any] = {}  # clones, which keep what was read in use

    def current(self) -> AheadBlock | None:
        """This thread's block."""
        block: AheadBlock | None = getattr(self._of_thread, "block", None)
        return block

    @contextmanager
    def block(self, beyond_cap: bool, raise_if_stopped: Callable[[], None] = lambda: None) -> Iterator[AheadBlock]:
        """A block of this thread, in which loaders read ahead and may raise :class:`NotAhead`. Not inside another.

        *beyond_cap*: the models are wanted next, so they may be read although they do not fit beside what is kept, as their loader would
        do. Without it they must fit under the cap. In both cases the RAM must be free. *raise_if_stopped* is asked before a read begins,
        when no loader can have the same models read any more.
        """
        self._of_thread.block = AheadBlock(beyond_cap, raise_if_stopped)
        try:
            yield self._of_thread.block
        finally:
            self._of_thread.block = None

    def refuse(self, reason: str) -> None:
        """End a load ahead, if this thread does one: what it loads cannot be kept for the loader."""
        if self.current() is not None:
            raise NotAhead(reason)

    def awaited(self, block: AheadBlock) -> bool:
        """Whether a loader waits for what *block* reads."""
        return self._flights.awaited(list(block.keys))

    def has(self, keys: Collection[Hashable]) -> bool:
        """Whether none of *keys* has to be read: each is there, or known to name nothing."""
        with self._access.lock:
            return not self._missing(keys)

    def _missing(self, keys: Collection[Hashable]) -> list[Hashable]:
        table = self._access.table
        return [key for key in keys if key not in table.entries and key not in table.absent]

    def fetch(self, block: AheadBlock, wanted: Mapping[Hashable, Estimate], load: Load) -> dict[Hashable, Any]:
        """Read what is missing of *wanted*; returns clones of all, for the rest of the loader's work.

        Raises :class:`NotAhead` where that is not possible or not needed, and what *load* raises; nothing stays reserved then, and whoever
        waits for the same keys loads for itself.
        """
        block.keys.update(wanted)
        with self._flights.if_free(*wanted) as alone:
            if not alone:
                raise NotAhead("it is being loaded")
            with self._access.lock:
                missing = self._missing(wanted)
            if not missing:
                raise NotAhead("it is here already")
            block.raise_if_stopped()
            with self._drops.loading():
                found = self._load(block, {key: wanted[key] for key in missing}, load)
            return {key: found[key] if key in found else self._clone_of(key) for key in wanted}

    def _load(self, block: AheadBlock, missing: Mapping[Hashable, Estimate], load: Load) -> dict[Hashable, Any]:
        sizes = {key: estimate() if callable(estimate) else estimate for key, estimate in missing.items()}
        available_bytes = self._hooks.available_bytes()
        with self._access.changing() as table:
            obstacle = self._obstacle(table, sum(sizes.values()), available_bytes, block.beyond_cap)
            for key, size_bytes in sizes.items() if not obstacle else ():
                table.loads.begin(key, size_bytes, refusal="read ahead")
        if obstacle:
            raise NotAhead(obstacle)
        found: dict[Hashable, Any] = {}
        try:
            started_s = self._clock()
            loaded = load(list(sizes))
            seconds_per_byte = (self._clock() - started_s) / max(1, sum(sizes.values()))
            for key, size_bytes in sizes.items():
                part = as_loaded(loaded.get(key))
                found[key] = self._take_in(key, part, size_bytes * seconds_per_byte if part.seconds is None else part.seconds)
        finally:
            if len(found) < len(sizes):
                with self._access.changing() as table:
                    for key in sizes.keys() - found.keys():
                        table.release(key)
        return found

    def _obstacle(self, table: ModelTable, size_bytes: int, available_bytes: int, beyond_cap: bool) -> str:
        """Why *size_bytes* more must not be read now; "" if they may be."""
        if table.under_pressure or size_bytes + table.loads.loading_bytes() + table.settings.headroom > available_bytes:
            return "too little RAM is free"
        taken_bytes = table.ledger.total_bytes + table.loads.loading_bytes() + table.ahead_bytes()
        return "" if beyond_cap or taken_bytes + size_bytes <= table.settings.cap_bytes else "it does not fit beside what is kept"

    def _take_in(self, key: Hashable, part: Loaded, seconds: float) -> Any:
        """Keep what was read for *key* until its loader asks; None stays None: the file has no such part."""
        patcher = None if part.value is None else patcher_of(part.value)
        if patcher is None or not getattr(key, "is_current", lambda: True)():
            with self._access.changing() as table:
                table.release(key)
                if part.value is None:
                    table.note_absent(key)
            if part.value is not None:
                raise NotAhead("it has no patcher" if patcher is None else "a file changed while it was read")
            return None
        storages, clone = self._hooks.measure(patcher), hand_out(part.value)
        with self._access.changing() as table:
            if key in table.entries:  # by a thread that could not wait, as it was in a load itself
                table.release(key)
                raise NotAhead("it is here already")
            entry = table.add_ahead(key, part.value, storages, seconds, part.read_bytes)
            entry.used_s = self._clock()
            table.watch(entry, own_patcher(clone))
        with self._lock:
            self._waiting[key] = clone
        return clone

    def _clone_of(self, key: Hashable) -> Any:
        with self._access.using(lambda table: table.entries.get(key)) as use:
            return None if use.entry is None else hand_out(use.value)

    def waiting(self) -> list[Hashable]:
        """The keys of what was read and that no loader has asked for yet."""
        with self._lock:
            return list(self._waiting)

    def let_go(self, *keys: Hashable) -> None:
        """No longer hold what was read ahead for *keys* (none given: for all): its loader has it, or it is not wanted any more."""
        with self._lock:
            clones = [self._waiting.pop(key, None) for key in keys or list(self._waiting)]
        if any(clone is not None for clone in clones):
            clones.clear()
            with self._access.changing():
                pass  # notes that the clones died

    def give_way(self, needed_bytes: int) -> None:
        """Let all go unless *needed_bytes* of RAM are free. Reads no figures while nothing waits."""
        if self._waiting and self._hooks.available_bytes() < needed_bytes:
            self.let_go()
