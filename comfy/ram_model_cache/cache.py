"""Models that left the accelerator or the executor's cache stay in host RAM, so that no loader reads them from disk again.

A loader's result is held as it is and never handed out: callers get clones whose ``parent`` chain ends at it, and a clone's death
tells that it is no longer in use. Once no clone lives, the owner restores the base at a safe point. The states of a model are those of
``states.py``, drawn in docs/architecture.md.

Locks, in order: ``_lock`` guards the table; the drop queue and the flights have a leaf lock each. Under ``_lock`` nothing blocks, logs,
measures tensors or calls the owner, and no model is dropped: the drop queue does that later, when no critical section of the owner is
open. Weak reference callbacks only append to a deque, which the next operation reads; they take no lock and may run at any moment.
Finalizers of the owner must not call the cache.

Portable: standard library and the modules next to it; models are touched only by what ``models.py`` lists.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from comfy.ram_model_cache.access import TableAccess
from comfy.ram_model_cache.ahead import AheadLoads
from comfy.ram_model_cache.drops import DropQueue
from comfy.ram_model_cache.flights import Flights, start_daemon
from comfy.ram_model_cache.holds import Holds
from comfy.ram_model_cache.journal import Journal
from comfy.ram_model_cache.models import LoadedModel, Patcher
from comfy.ram_model_cache.named import NamedModels
from comfy.ram_model_cache.null import NullRamModelCache
from comfy.ram_model_cache.pending import PendingFiles
from comfy.ram_model_cache.policy import RamCachePolicy
from comfy.ram_model_cache.receipts import current_prompt
from comfy.ram_model_cache.resettling import Renamed, resettle
from comfy.ram_model_cache.shadows import ChoosingPolicy
from comfy.ram_model_cache.states import State
from comfy.ram_model_cache.storage import base_of, hand_out, is_dynamic, own_patcher, patcher_of
from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.upkeep import Upkeep
from comfy.ram_model_cache.uses import Use
from comfy.ram_model_cache.values import CacheSettings, CacheStats, DeviceEvent, Entry, Hit, Loaded, OwnerHooks, as_loaded, label_of

__all__ = ["CacheSettings", "CacheStats", "DeviceEvent", "Hit", "Loaded", "NullRamModelCache", "OwnerHooks", "RamModelCache"]

MONITOR_INTERVAL_S = 5.0
TICK_INTERVAL_S = 0.05  # asking for free memory costs as much as a pass-through node
Load = Callable[[list[Hashable]], Mapping[Hashable, Any]]
Estimate = int | Callable[[], int]
Note = Callable[[ModelTable, LoadedModel, Patcher | None], Entry | None]
log = logging.getLogger(__name__)


class RamModelCache:
    """Keeps loaded models up to a cap of bytes. Any thread may call any method; see the module for the locks.

    *clock* counts seconds for idleness, *wall_clock* since the epoch; *start_thread* runs a function in the background and is used only
    while the cache is not empty. Its owner calls :meth:`close`.
    """

    enabled = True

    def __init__(
        self,
        settings: CacheSettings,
        hooks: OwnerHooks | None = None,
        policy: RamCachePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        start_thread: Callable[[Callable[[], None]], None] = start_daemon,
    ) -> None:
        self.settings, self._hooks = settings, hooks or OwnerHooks()
        self._clock, self._start_thread = clock, start_thread
        self._monitor_runs, self._ticked_s, self._closed = False, float("-inf"), threading.Event()
        self._drops, self._flights = DropQueue(self._hooks), Flights(self._hooks.raise_if_interrupted)
        self._journal, self.holds = Journal(wall_clock), Holds()
        self._table = ModelTable(settings, policy or ChoosingPolicy(settings.cap_bytes), self._drops, self._journal)
        access = TableAccess(self._table, self._journal, self._drops, self._keep_watch)
        self._lock, self._changing, self._using = access.lock, access.changing, access.using
        self._upkeep = Upkeep(self._hooks, self._flights, access)
        self.named, self.ahead = NamedModels(access.changing, clock), AheadLoads(self._hooks, self._flights, self._drops, access, clock)

    def _keep_watch(self) -> None:
        with self._lock:
            starts = bool(self._table.entries) and not self._monitor_runs and not self._closed.is_set()
            self._monitor_runs = self._monitor_runs or starts
        if starts:
            self._start_thread(self._monitor)

    def fetch(self, wanted: Mapping[Hashable, Estimate], load: Load, hold: bool = False) -> dict[Hashable, Any]:
        """The models of *wanted* ({key: estimated bytes, or what tells them}), from here or, those missing, from one call of *load*.

        *load* takes the missing keys and returns {key: model, :class:`Loaded`, or None where the file has no such part}; estimates
        given as functions are asked on a miss only. What either raises is raised, nothing stays reserved, and whoever waits for the same
        keys tries for itself. *hold* keeps new entries to the last; inside a block of ``holds`` all are, or ``NoRoom`` is raised.
        """
        if (reading := self.ahead.current()) is not None:
            return self.ahead.fetch(reading, wanted, load)
        held = self.holds.keys()
        found = self._fetch(wanted, load, hold or held is not None)
        if held is not None:
            held.update(key for key in wanted if self.set_held(key, True))
        return found

    def _fetch(self, wanted: Mapping[Hashable, Estimate], load: Load, hold: bool) -> dict[Hashable, Any]:
        asked_s = self._clock()
        with self.single_flight(*wanted):
            waited_s = self._clock() - asked_s
            hits: dict[Hashable, Hit | None] = {}
            for key in wanted:
                hits[key] = hit = self.lookup(key, waited_s)
                waited_s = max(0.0, waited_s - (0.0 if hit is None else hit.saved_seconds))  # one load may have read several
            found = {key: hit.value for key, hit in hits.items() if hit is not None}
            missing = {key: estimate for key, estimate in wanted.items() if key not in found}
            if missing:
                with self._drops.loading():
                    found.update(self._load(missing, load, hold))
            return found

    def _load(self, missing: Mapping[Hashable, Estimate], load: Load, hold: bool) -> dict[Hashable, Any]:
        """Read *missing* with everything reserved first; where the loader does not say what a part took, its share by bytes counts."""
        found: dict[Hashable, Any] = {}
        try:
            sizes = {key: estimate() if callable(estimate) else estimate for key, estimate in missing.items()}
            for key, size_bytes in sizes.items():
                self.holds.insist(self.reserve(key, size_bytes, hold), key, size_bytes)
            started_s = self._clock()
            loaded = load(list(sizes))
            seconds_per_byte = (self._clock() - started_s) / max(1, sum(sizes.values()))
            for key, size_bytes in sizes.items():
                part = as_loaded(loaded.get(key))
                seconds = size_bytes * seconds_per_byte if part.seconds is None else part.seconds
                found[key] = self.admit(key, part.value, seconds, part.read_bytes, hold, part.tier)
        finally:
            if len(found) < len(missing):
                self.abandon(*(key for key in missing if key not in found))
        return found

    def single_flight(self, *keys: Hashable) -> AbstractContextManager[None]:
        """Let only this thread load *keys* meanwhile; others wait, then find them by :meth:`lookup`. See :class:`Flights`."""
        return self._flights.alone(keys)

    def lookup(self, key: Hashable, waited_s: float = 0.0) -> Hit | None:
        """A clone of the model under *key*, or None. Call it inside :meth:`single_flight` where a miss leads to a load.

        *waited_s*: how long the caller had to wait for it.
        """
        pending = PendingFiles(self._hooks.pending_paths())
        with self._using(lambda table: table.asked_for(key, pending)) as use:
            if use.entry is not None:
                return self._hit(use, use.entry, waited_s)
        with self._changing() as table:
            return Hit(None, "none") if table.is_absent(key) else None

    def _hit(self, use: Use, entry: Entry, waited_s: float) -> Hit:
        """Hand out a clone of *entry*, which *use* is of."""
        clone = hand_out(use.value)
        with self._changing() as table:
            use.end()
            table.watch(entry, own_patcher(clone))
            refusal = table.keep(entry) if entry.state is State.LENT else ""
            entry.used_s = self._clock()
            tier = self._journal.hit(entry) if entry.ahead is None else table.take_ahead(entry, refusal, waited_s)
        self.ahead.let_go(entry.key)
        return Hit(clone, tier, entry.seconds)

    def reserve(self, key: Hashable, estimated_bytes: int, hold: bool = False) -> bool:
        """Make room for *key* before it is read; whether it is to be kept. Evicts by the policy, and more if RAM runs short.

        Inside a block of ``holds``, where the load is given up if it is not kept, RAM that only held models could free is no room.
        """
        pending = PendingFiles(self._hooks.pending_paths())
        needed_bytes = self._hooks.fresh_bytes(key, estimated_bytes) + self.settings.headroom
        self.ahead.give_way(needed_bytes)
        self._hooks.relieve(needed_bytes - self._hooks.available_bytes() - self._drops.waiting_bytes())
        if current_prompt.get() is not None:  # on the thread that runs nodes
            with self._changing() as table:
                over_cap = table.ledger.total_bytes + table.loads.reserved_bytes() + estimated_bytes - self.settings.cap_bytes
            wanted_bytes = max(over_cap, needed_bytes - self._hooks.available_bytes() - self._drops.waiting_bytes())
            self._upkeep.unpatch_idle(wanted_bytes, f"memory needed to read {label_of(key)}")
        shortfall = needed_bytes - self._hooks.available_bytes()
        with self._changing() as table:
            table.pending = pending
            if self.holds.keys() is not None and shortfall > self._drops.waiting_bytes():
                unheld = (name for name in table.idle_keys() if not table.entries[name].held)
                if shortfall > self._drops.waiting_bytes() + sum(map(table.ledger.own_bytes, unheld)):
                    return False
            kept = table.reserve(key, estimated_bytes, hold)
            table.relieve(shortfall - self._drops.waiting_bytes(), f"memory needed to read {label_of(key)}")  # less what that evicted
        return kept

    def admit(
        self, key: Hashable, value: Any, reload_seconds: float, read_bytes: int | None = None, hold: bool = False, tier: str = "disk"
    ) -> Any:
        """Take *value*, just loaded for *key*, and return the clone to use in its place (None stays None: no such part).

        *value* itself is returned when it cannot be cached: it has no patcher, or a file changed during the load.
        """
        patcher = None if value is None else patcher_of(value)
        if value is None or patcher is None or not getattr(key, "is_current", lambda: True)():
            why = "" if value is None else "it has no patcher" if patcher is None else "a file changed while it was read"
            self._pass_on(key, why, reload_seconds, read_bytes or 0)
            return value
        if is_dynamic(patcher):
            self._hooks.deactivate_pins(patcher)
        storages = self._hooks.measure(patcher)
        clone = hand_out(value)
        with self._changing() as table:
            entry, why = table.add(key, value, storages, reload_seconds, hold)
            entry.used_s = self._clock()
            table.watch(entry, own_patcher(clone))
            self._journal.loaded(entry, why, read_bytes, tier)
        return clone

    def _pass_on(self, key: Hashable, why: str, seconds: float, read_bytes: int) -> None:
        """Note what cannot be cached and why; "" means that the file has no such part."""
        with self._changing() as table:
            table.release(key)
            if why:
                self._journal.uncached(key, why, seconds, read_bytes)
            else:
                table.note_absent(key)

    def abandon(self, *keys: Hashable) -> None:
        """Give back what was reserved for *keys*: their load failed."""
        with self._changing() as table:
            for key in keys:
                table.release(key)
                self._journal.failed(key)

    def note_bypass(self, label: str, reason: str, tier: str = "bypass") -> None:
        """Put on record a load that is not cached at all, and why; or, with the *tier* ``unique``, patches that only equal themselves."""
        self.ahead.refuse(reason)
        with self._changing():
            self._journal.bypassed(label, reason, tier)

    # Devices: three calls, each from one place of the owner's memory management

    def reclaim(self, loaded_model: LoadedModel) -> DeviceEvent:
        """Note that *loaded_model* is on a device now; call it after a load, once the model is on the owner's list.

        Tells whether a kept model arrived or returned; what its weights take of the host's memory now is counted.
        """
        with self._using_model(loaded_model, ModelTable.note_arrival) as use:
            arrival = DeviceEvent.RETURNED if use.entry is not None and use.entry.has_left else DeviceEvent.ARRIVED
            return arrival if self._measure_anew(use) else DeviceEvent.NOT_KEPT

    def retain(self, loaded_model: LoadedModel) -> DeviceEvent:
        """Note that *loaded_model* left its device; call it after an unload, once the model is off the owner's list and its finalizer
        detached.

        ``LEFT`` when the cache keeps the weights in RAM. Dynamic models keep their own management: nothing is measured or kept of them.
        """
        with self._using_model(loaded_model, ModelTable.note_departure) as use:
            stays = use.entry is not None and not is_dynamic(patcher_of(use.value)) and self._measure_anew(use, leaves=True)
            return DeviceEvent.LEFT if stays else DeviceEvent.NOT_KEPT

    def remeasure(self, loaded_model: LoadedModel) -> None:
        """Note that a move of *loaded_model* failed half-way: its weights may lie elsewhere now."""
        with self._using_model(loaded_model, ModelTable.of_model) as use:
            self._measure_anew(use)

    @contextmanager
    def _using_model(self, loaded_model: LoadedModel, note: Note) -> Iterator[Use]:
        """A use of the entry that *note* finds for *loaded_model* and its base."""
        base = base_of(getattr(loaded_model, "model", None))
        with self._using(lambda table: note(table, loaded_model, base)) as use:
            base = None  # this frame must not keep a model that is dropped
            yield use

    def _measure_anew(self, use: Use, leaves: bool = False) -> bool:
        """Count the host memory of the model in *use*, which perhaps *leaves* a device, and end the use; whether the model is kept."""
        entry = use.entry
        if entry is None:
            return False
        entry.used_s = self._clock()
        storages = self._hooks.measure(own_patcher(use.value))
        with self._changing() as table:
            use.end()
            table.remeasured(entry, storages)
            is_kept = entry.state is State.KEPT
            entry.has_left = entry.has_left or (leaves and is_kept)
            return is_kept

    def critical_section(self) -> AbstractContextManager[None]:
        """No model is dropped by anyone while this is open; for the owner's loops over its loaded models. May be nested."""
        return self._drops.critical_section()

    def safe_point(self) -> None:
        """Between two nodes: restore bases whose last clone died, give way to memory pressure, drop what may go.

        Under pressure patched weights that nobody uses go first, then models.
        """
        due = self._upkeep.restore_due()
        if due or self._clock() - self._ticked_s >= TICK_INTERVAL_S:
            shortfall = self.settings.pressure_bytes(self._hooks.available_bytes() + self._drops.waiting_bytes())
            self._upkeep.unpatch_idle(shortfall, "memory pressure")
            self.tick()

    def tick(self) -> None:
        """Let idle entries go, give way to memory pressure, drop what may go. The monitor calls it too."""
        pending = PendingFiles(self._hooks.pending_paths())
        self._ticked_s = self._clock()
        self.ahead.give_way(self.settings.headroom)
        self._hooks.relieve(self.settings.pressure_bytes(self._hooks.available_bytes() + self._drops.waiting_bytes()))
        available_bytes = self._hooks.available_bytes()
        with self._changing() as table:
            table.pending = pending
            table.expire(self._clock())
            table.watch_pressure(available_bytes + self._drops.waiting_bytes())

    def discard(self, key: Hashable, why: str) -> None:
        """Forget the model under *key*, whoever uses it: it is not to be handed out again."""
        with self._changing() as table:
            table.discard(key, why, "damaged")

    def set_held(self, key: Hashable, held: bool) -> bool:
        """Mark a preloaded entry as the last to go, or as an ordinary one; whether it is cached."""
        with self._changing() as table:
            return table.hold(key, held)

    def is_held(self, key: Hashable) -> bool:
        """Whether the model under *key* is kept, and among the last to go."""
        with self._changing() as table:
            return table.is_held(key)

    def resettle(self, settings: CacheSettings, renamed: Renamed) -> None:
        """After a restore, while nothing loads: other *settings*, and each entry under the key that *renamed* gives it."""
        self.ahead.let_go()
        self.settings, self._ticked_s = settings, float("-inf")
        with self._changing() as table:
            resettle(table, settings, renamed, self._clock())

    def clear(self, why: str = "asked to free memory") -> int:
        """Evict everything, held entries too; returns the bytes no longer kept. What is in use lives until its users are done."""
        self.ahead.let_go()
        with self._changing() as table:
            return table.clear(why)

    def close(self) -> None:
        """End the monitor and drop everything."""
        self._closed.set()
        self.clear("the server ends")

    def begin_prompt(self, prompt_id: str) -> None:
        """Receipts go to *prompt_id* from now on, in this context."""
        with self._changing() as table:
            self._journal.book.begin(prompt_id)
            table.asked.clear()

    def end_prompt(self, prompt_id: str) -> list[dict[str, Any]]:
        """Log one line about the models *prompt_id* used; returns its receipts."""
        with self._changing():
            summary, found = self._journal.book.summary(prompt_id), self._journal.book.of(prompt_id)
            self._journal.book.end()
        if summary:
            log.info(summary)
        return found

    def receipts(self, prompt_id: str | None) -> list[dict[str, Any]]:
        """What *prompt_id* used, in order; None: loads outside prompts."""
        with self._lock:
            return self._journal.book.of(prompt_id)

    def stats(self) -> CacheStats:
        """Sizes and counters now."""
        with self._lock:
            return self._table.stats()

    def entries(self, describe: Callable[[Entry, float], Any] = Entry.described) -> list[Any]:
        """What ``describe(entry, now_s)``, called under the lock, says of every entry; by default plain dicts for status pages."""
        with self._lock:
            return [describe(entry, self._clock()) for entry in self._table.entries.values()]

    def check(self) -> list[str]:
        """Measure every kept model and recompute the books; returns what does not hold, in words. For tests and status pages."""
        measured = {}
        with ExitStack() as uses:
            with self._changing() as table:
                kept = table.kept_keys()
            for key in kept:
                use = uses.enter_context(self._using(partial(ModelTable.kept, key=key)))
                if use.entry is not None:
                    measured[key] = self._hooks.measure(own_patcher(use.value))
            with self._changing() as table:
                return table.check(measured)

    def _monitor(self) -> None:
        """Run in the background until the cache is empty or closed."""
        while not self._closed.wait(MONITOR_INTERVAL_S):
            self.tick()
            with self._lock:
                if not self._table.entries:
                    self._monitor_runs = False
                    return
