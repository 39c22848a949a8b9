"""Models that left the accelerator or the executor's cache stay in host RAM, so that no loader reads them from disk again.

States of a key: ABSENT, RESERVED while a loader reads it, then KEPT (counted against the cap) or LENT (not kept, but still used by
someone, so that asking again must not make a second copy)::

    ABSENT --reserve--> RESERVED --admit--> KEPT <--lookup, if the policy agrees-- LENT
      ^                    |        `---------|----- admit, refused ----------------^ |
      |<--- load failed ---'                  |------- evicted while in use ---------'| |
      |<------------------------ evicted -----'                                         |
      |<------------------------ last clone died ---------------------------------------'

A loader's result is held as it is and never handed out: callers get clones whose ``parent`` chain ends at it, and a clone's death
tells that it is no longer in use. Once no clone lives, the host restores the base at a safe point.

Locks, in order: ``_lock`` guards the table; the drop queue and the flights have a leaf lock each. Under ``_lock`` nothing blocks, logs,
measures tensors or calls the host, and no model is dropped: the drop queue does that later, when no critical section of the host is
open. Weak reference callbacks only append to a deque, which the next operation reads; they take no lock and may run at any moment.
Finalizers of the host must not call the cache.

Portable: standard library and the modules next to it; models are touched only through ``.model``, ``.parent``, ``.clone()``,
``.is_dynamic()`` and ``pinned_memory_size()``.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from comfy.ram_model_cache.drops import DropQueue
from comfy.ram_model_cache.flights import Flights
from comfy.ram_model_cache.null import NullRamModelCache
from comfy.ram_model_cache.policy import RamCachePolicy
from comfy.ram_model_cache.receipts import Receipt, ReceiptBook, current_prompt
from comfy.ram_model_cache.storage import base_of, hand_out, is_dynamic, patcher_of
from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.values import CacheSettings, CacheStats, Entry, Hit, HostHooks, Loaded, State, as_loaded, label_of
from comfy.units import megabytes

__all__ = ["CacheSettings", "CacheStats", "Hit", "HostHooks", "Loaded", "NullRamModelCache", "RamModelCache"]

MONITOR_INTERVAL_S = 5.0
TICK_INTERVAL_S = 0.05  # asking for free memory costs as much as a pass-through node
Load = Callable[[list[Hashable]], Mapping[Hashable, Any]]
Estimate = int | Callable[[], int]


def _start_daemon(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="ram-model-cache", daemon=True).start()


class RamModelCache:
    """Keeps loaded models up to a cap of bytes. Any thread may call any method; see the module for states and locks.

    *clock* counts seconds for idleness, *wall_clock* since the epoch; *start_thread* runs a function in the background and is used only
    while the cache is not empty. Its owner calls :meth:`close`.
    """

    enabled = True

    def __init__(
        self,
        settings: CacheSettings,
        hooks: HostHooks | None = None,
        policy: RamCachePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        start_thread: Callable[[Callable[[], None]], None] = _start_daemon,
    ) -> None:
        self.settings = settings
        self._hooks = hooks or HostHooks()
        self._clock, self._start_thread = clock, start_thread
        self._lock = threading.Lock()
        self._drops, self._flights = DropQueue(self._hooks), Flights(self._hooks.raise_if_interrupted)
        self._table = ModelTable(settings, policy or RamCachePolicy(), self._drops, wall_clock)
        self._book = ReceiptBook()
        self._asked: set[Hashable] = set()
        self._monitor_runs = False
        self._ticked_s = float("-inf")
        self._closed = threading.Event()

    # Loading

    def fetch(self, wanted: Mapping[Hashable, Estimate], load: Load, hold: bool = False) -> dict[Hashable, Any]:
        """The models of *wanted* ({key: estimated bytes, or what tells them}), from here or, those missing, from one call of *load*.

        *load* takes the missing keys and returns {key: model, :class:`Loaded`, or None where the file has no such part}; estimates
        given as functions are asked on a miss only. What either raises is raised, nothing stays reserved, and whoever waits for the same
        keys tries for itself. *hold* keeps new entries to the last.
        """
        with self.single_flight(*wanted):
            hits = {key: self.lookup(key) for key in wanted}
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
                self.reserve(key, size_bytes, hold)
            started_s = self._clock()
            loaded = load(list(sizes))
            seconds_per_byte = (self._clock() - started_s) / max(1, sum(sizes.values()))
            for key, size_bytes in sizes.items():
                part = as_loaded(loaded.get(key))
                seconds = size_bytes * seconds_per_byte if part.seconds is None else part.seconds
                found[key] = self.admit(key, part.value, seconds, part.read_bytes, hold)
        finally:
            if len(found) < len(missing):
                self.abandon(*(key for key in missing if key not in found))
        return found

    def single_flight(self, *keys: Hashable) -> AbstractContextManager[None]:
        """Let only this thread load *keys* meanwhile; others wait, then find them by :meth:`lookup`. See :class:`Flights`."""
        return self._flights.alone(keys)

    def lookup(self, key: Hashable) -> Hit | None:
        """A clone of the model under *key*, or None. Call it inside :meth:`single_flight` where a miss leads to a load."""
        self._note_pending()
        with self._lock:
            self._table.drain()
            self._note_request(key)
            absent = key in self._table.absent
            entry = self._table.entries.get(key)
            if entry is None:
                self._table.evict_replaced(key)
            else:
                entry.busy += 1
                base = entry.value
            if absent:
                self._book.add(Receipt(label_of(key), "none", 0, 0.0, False, "the file has no such part"))
        if entry is None:
            self._finish()
            return Hit(None, "none") if absent else None
        return self._hit(entry, base)

    def _hit(self, entry: Entry, base: Any) -> Hit:
        """Hand out a clone of *base*; *entry* is marked busy, which ends here."""
        clone = None
        try:
            clone = hand_out(base)
        finally:
            with self._lock:
                if clone is not None:
                    self._table.watch(entry, patcher_of(clone))
                    if entry.state is State.LENT and self._table.entries.get(entry.key) is entry:
                        self._table.keep(entry)
                    entry.used_s = self._clock()
                    tier = "in use" if entry.state is State.LENT else "vram" if entry.on_devices else "ram"
                    self._table.counters.hits += 1
                    self._table.counters.saved_seconds += entry.seconds
                    self._book.add(Receipt(entry.label, tier, entry.size_bytes, entry.seconds, entry.state is State.KEPT))
                entry.busy -= 1
            self._finish()
        return Hit(clone, tier, entry.seconds)

    def reserve(self, key: Hashable, estimated_bytes: int, hold: bool = False) -> bool:
        """Make room for *key* before it is read; whether it is to be kept. Evicts by the policy, and more if RAM runs short."""
        self._note_pending()
        shortfall = estimated_bytes + self.settings.headroom - self._hooks.available_bytes()
        with self._lock:
            self._table.drain()
            kept = self._table.reserve(key, estimated_bytes, hold)
            self._table.relieve(shortfall - self._drops.waiting_bytes(), f"memory needed to read {label_of(key)}")
        self._finish()
        return kept

    def admit(self, key: Hashable, value: Any, reload_seconds: float, read_bytes: int | None = None, hold: bool = False) -> Any:
        """Take *value*, just loaded for *key*, and return the clone to use in its place (None stays None: no such part).

        *value* itself is returned when it cannot be cached: it has no patcher, or a file changed during the load.
        """
        patcher = None if value is None else patcher_of(value)
        if value is None or patcher is None or not getattr(key, "is_current", lambda: True)():
            why = "" if value is None else "it has no patcher" if patcher is None else "a file changed while it was read"
            self._note_uncached(key, why, reload_seconds, read_bytes or 0)
            return value
        if is_dynamic(patcher):
            self._hooks.deactivate_pins(patcher)
        storages = self._hooks.measure(patcher)
        clone = hand_out(value)
        entry = Entry(key, value, State.LENT, storages, reload_seconds, self._clock(), hold, busy=1)
        with self._lock:
            self._table.drain()
            why, refusal = self._table.add(entry)
            self._table.watch(entry, patcher_of(clone))
            entry.busy -= 1
            self._table.counters.misses += 1
            self._table.counters.read_bytes += entry.size_bytes if read_bytes is None else read_bytes
            story = f"{why}; not kept: {refusal}" if refusal else why
            self._book.add(Receipt(entry.label, "disk", entry.size_bytes, reload_seconds, not refusal, story))
            size = megabytes(entry.size_bytes)
            self._table.log.append((logging.INFO, f"RAM model cache: loaded {entry.label} ({size} in {reload_seconds:.2f} s): {story}"))
        self._finish()
        return clone

    def _note_uncached(self, key: Hashable, why: str, seconds: float, read_bytes: int) -> None:
        with self._lock:
            self._table.release(key)
            if why:
                self._table.counters.misses += 1
                self._table.counters.refusals += 1
                self._table.counters.read_bytes += read_bytes
                self._book.add(Receipt(label_of(key), "disk", read_bytes, seconds, False, f"not kept: {why}"))
            else:
                self._table.note_absent(key)
        self._finish()

    def abandon(self, *keys: Hashable) -> None:
        """Give back what was reserved for *keys*: their load failed."""
        with self._lock:
            for key in keys:
                self._table.release(key)
                self._table.counters.failures += 1
                self._book.add(Receipt(label_of(key), "disk", 0, 0.0, False, "the load failed"))
        self._finish()

    def note_bypass(self, label: str, reason: str) -> None:
        """Put on record a load that is not cached at all, and why."""
        with self._lock:
            self._table.counters.bypasses += 1
            self._book.add(Receipt(label, "bypass", 0, 0.0, False, reason))
            self._table.log.append((logging.INFO, f"RAM model cache: {label} is loaded without it: {reason}"))
        self._finish()

    # Devices

    def reclaim(self, loaded_model: Any) -> bool:
        """Note that the host took a model to a device (``LoadedModel`` *loaded_model*); whether it is one of the cache's."""
        return self._move(loaded_model, arrives=True)

    def retain(self, loaded_model: Any) -> bool:
        """Note that *loaded_model*, unloaded and off the host's list, left its device; whether the cache keeps the weights in RAM.

        The host has detached its finalizer. Dynamic models keep their own management: False, and nothing is done for them.
        """
        return self._move(loaded_model, arrives=False)

    def remeasure(self, loaded_model: Any) -> None:
        """Note that a move of *loaded_model* failed half-way: its weights may lie elsewhere now."""
        self._move(loaded_model, arrives=None)

    def _move(self, loaded_model: Any, arrives: bool | None) -> bool:
        base = base_of(getattr(loaded_model, "model", None))
        with self._lock:
            self._table.drain()
            entry = self._table.owner_of(loaded_model, base)
            if entry is None:
                if arrives is False:
                    self._drops.note_detached(loaded_model)
                return False
            entry.busy += 1
            base = patcher_of(entry.value)
        storages = None
        try:
            left_alone = arrives is False and is_dynamic(base)
            storages = None if left_alone else self._hooks.measure(base)
        finally:
            with self._lock:
                if arrives is not None:
                    self._table.note_move(entry, loaded_model, arrives)
                entry.used_s = self._clock()
                if storages is not None:
                    self._table.remeasured(entry, storages)
                entry.busy -= 1
                kept = entry.state is State.KEPT and storages is not None
            base = None
            self._finish()
        return kept

    def critical_section(self) -> AbstractContextManager[None]:
        """No model is dropped by anyone while this is open; for the host's loops over its loaded models. May be nested."""
        return self._drops.critical_section()

    # Upkeep

    def safe_point(self) -> None:
        """Between two nodes: restore bases whose last clone died, give way to memory pressure, drop what may go."""
        with self._lock:
            self._table.drain()
            due = [key for key, entry in self._table.entries.items() if entry.restore_due and not entry.in_use]
        for key in due:
            with self._flights.if_free(key) as alone:
                if alone:
                    self._restore(key)
        if due or self._clock() - self._ticked_s >= TICK_INTERVAL_S:
            self.tick()

    def _restore(self, key: Hashable) -> None:
        """Have the host restore the base under *key*, which this thread has to itself; an entry that cannot be is evicted."""
        with self._lock:
            entry = self._table.entries.get(key)
            if entry is None or entry.in_use or not entry.restore_due:
                return
            entry.busy += 1
            patcher = patcher_of(entry.value)
        storages = None
        try:
            self._hooks.restore_base(patcher)
            storages = self._hooks.measure(patcher)
        except Exception:
            # As text: a record that kept the exception would keep its frames, and with them the model.
            logging.error(
                "RAM model cache: %s could not be restored to its original weights and is dropped\n%s", entry.label, traceback.format_exc()
            )
        finally:
            patcher = None
            with self._lock:
                entry.restore_due = False
                entry.busy -= 1
                if storages is not None:
                    self._table.remeasured(entry, storages)
                elif self._table.entries.get(key) is entry:
                    self._table.evict(entry, "its original weights could not be restored", "not restored")

    def tick(self) -> None:
        """Let idle entries go, give way to memory pressure, drop what may go. The monitor calls it too."""
        self._note_pending()
        self._ticked_s = self._clock()
        available_bytes = self._hooks.available_bytes()
        with self._lock:
            self._table.drain()
            self._table.expire(self._clock())
            self._table.watch_pressure(available_bytes + self._drops.waiting_bytes())
        self._finish()

    def set_held(self, key: Hashable, held: bool) -> bool:
        """Mark a preloaded entry as the last to go, or as an ordinary one; whether it is cached."""
        with self._lock:
            entry = self._table.entries.get(key)
            if entry is not None:
                entry.held = held
        return entry is not None

    def clear(self, why: str = "asked to free memory") -> int:
        """Evict everything, held entries too; returns the bytes no longer kept. What is in use lives until its users are done."""
        with self._lock:
            self._table.drain()
            kept_bytes = self._table.ledger.total_bytes
            for entry in list(self._table.entries.values()):
                if entry.state is State.KEPT:
                    self._table.evict(entry, why, "cleared")
            self._table.absent.clear()
        self._finish()
        return kept_bytes

    def close(self) -> None:
        """End the monitor and drop everything."""
        self._closed.set()
        self.clear("the server ends")

    # What happened

    def begin_prompt(self, prompt_id: str) -> None:
        """Receipts go to *prompt_id* from now on, in this context."""
        with self._lock:
            self._book.begin(prompt_id)
            self._asked.clear()

    def receipts(self, prompt_id: str | None) -> list[dict[str, Any]]:
        """What *prompt_id* used, in order; None: loads outside prompts."""
        with self._lock:
            return self._book.of(prompt_id)

    def end_prompt(self, prompt_id: str) -> list[dict[str, Any]]:
        """Log one line about the models *prompt_id* used; returns its receipts."""
        with self._lock:
            summary, found = self._book.summary(prompt_id), self._book.of(prompt_id)
            self._book.end()
        if summary:
            logging.info(summary)
        return found

    def stats(self) -> CacheStats:
        """Sizes and counters now."""
        with self._lock:
            table = self._table
            kept = sum(entry.state is State.KEPT for entry in table.entries.values())
            counters = replace(table.counters, evictions=dict(table.counters.evictions))
            return CacheStats(
                self.settings.cap_bytes,
                table.ledger.total_bytes,
                table.reserved_bytes(),
                table.lent_bytes(),
                self._drops.waiting_bytes(),
                kept,
                len(table.entries) - kept,
                table.under_pressure,
                counters,
            )

    def entries(self) -> list[dict[str, Any]]:
        """Every entry as a plain dict, for status pages."""
        with self._lock:
            now_s = self._clock()
            return [
                {
                    "model": entry.label,
                    "state": entry.state.value,
                    "bytes": entry.size_bytes,
                    "reload_s": entry.seconds,
                    "in_use": entry.in_use,
                    "on_devices": entry.on_devices,
                    "held": entry.held,
                    "idle_s": now_s - entry.used_s,
                }
                for entry in self._table.entries.values()
            ]

    def check(self) -> list[str]:
        """Measure every kept model and recompute the books; returns what does not hold, in words. For tests and status pages."""
        with self._lock:
            self._table.drain()
            kept = [entry for entry in self._table.entries.values() if entry.state is State.KEPT]
            for entry in kept:
                entry.busy += 1
        measured = {entry.key: self._hooks.measure(patcher_of(entry.value)) for entry in kept}
        with self._lock:
            for entry in kept:
                entry.busy -= 1
            return self._table.check(measured)

    # Internals

    def _note_request(self, key: Hashable) -> None:
        """Tell the policy, once per key and prompt."""
        in_prompt = current_prompt.get() is not None
        if not in_prompt or key not in self._asked:
            self._table.policy.request(key)
        if in_prompt:
            self._asked.add(key)

    def _note_pending(self) -> None:
        paths = frozenset(self._hooks.pending_paths())
        with self._lock:
            self._table.pending_paths = paths

    def _finish(self) -> None:
        """Without the lock: write the log, start the monitor, drop what may go."""
        with self._lock:
            lines, self._table.log = self._table.log, []
            starts = bool(self._table.entries) and not self._monitor_runs and not self._closed.is_set()
            self._monitor_runs = self._monitor_runs or starts
        for level, line in lines:
            logging.log(level, line)
        if starts:
            self._start_thread(self._monitor)
        self._drops.flush()

    def _monitor(self) -> None:
        """Run in the background until the cache is empty or closed."""
        while not self._closed.wait(MONITOR_INTERVAL_S):
            self.tick()
            with self._lock:
                if not self._table.entries:
                    self._monitor_runs = False
                    return
