"""The books of the RAM model cache: entries, reservations, bytes, and who makes room for whom.

Not thread-safe: the cache's lock is held around every call. Nothing here blocks, logs, measures tensors, calls the host or drops a
model; what must go is put into the drop queue, what is to be logged into ``log``. Portable: standard library only.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from comfy.ram_model_cache.drops import DropQueue
from comfy.ram_model_cache.policy import TOO_BIG, Decision, RamCachePolicy
from comfy.ram_model_cache.receipts import Counters, MissReasons
from comfy.ram_model_cache.storage import StorageLedger, Storages, patcher_of
from comfy.ram_model_cache.values import CacheSettings, Entry, State, label_of
from comfy.units import megabytes

ABSENT_LIMIT = 4096
PRESSURE_RELEASE = 1.5


class ModelTable:
    """Entries by key, KEPT ones counted against the cap, LENT ones only known. *wall_clock* gives seconds since the epoch."""

    def __init__(self, settings: CacheSettings, policy: RamCachePolicy, drops: DropQueue, wall_clock: Callable[[], float]) -> None:
        self.settings, self.policy = settings, policy
        self.entries: dict[Hashable, Entry] = {}
        self.by_patcher: dict[int, Entry] = {}
        self.absent: OrderedDict[Hashable, None] = OrderedDict()
        self.counters, self.reasons = Counters(), MissReasons()
        self.log: list[tuple[int, str]] = []
        self.ended: deque[weakref.ref[Any]] = deque()
        self.pending_paths: frozenset[str] = frozenset()
        self.under_pressure = False
        self.ledger = StorageLedger()
        self._drops, self._wall_clock = drops, wall_clock
        self._reserved: dict[Hashable, int] = {}
        self._refused: dict[Hashable, tuple[int, str]] = {}
        self._watched: dict[int, tuple[weakref.ref[Any], Entry]] = {}

    # Entries

    def add(self, entry: Entry) -> tuple[str, str]:
        """Enter a model just loaded, as KEPT if it may stay, else LENT; returns (why it was missing, why it is not kept or "")."""
        key = entry.key
        if key in self.entries:  # loaded twice, in a nested flight or without one: the newer one counts
            self.evict(self.entries[key], "loaded again", "loaded again")
            self._forget(self.entries.get(key))
        why = self.reasons.explain(key)
        self.entries[key] = self.by_patcher[id(patcher_of(entry.value))] = entry
        self.reasons.loaded(key)
        added_bytes, reserved_bytes = self.ledger.added_bytes(entry.storages), self._reserved.pop(key, -1)
        refused_bytes, refusal = self._refused.pop(key, (0, ""))
        self.policy.learn(key, entry.size_bytes, entry.seconds)
        if refusal and added_bytes >= refused_bytes:
            pass
        elif added_bytes <= reserved_bytes:
            refusal = self._put(entry)
        else:
            refusal = self.keep(entry)
        if refusal:
            self.counters.refusals += 1
            self.reasons.left(key, f"not kept ({refusal})", self._wall_clock())
        return why, refusal

    def keep(self, entry: Entry) -> str:
        """Make a LENT entry KEPT if the policy agrees; returns why not, or ""."""
        decision = self._decide(entry.key, self.ledger.added_bytes(entry.storages), entry.held)
        if not decision.admit:
            return decision.reason
        self._evict_victims(decision, entry.key)
        return self._put(entry)

    def _put(self, entry: Entry) -> str:
        total_bytes = self.ledger.total_bytes + self.ledger.added_bytes(entry.storages)
        if total_bytes + self.reserved_bytes() > self.settings.cap_bytes:
            return "no room beside loads in progress"
        self.ledger.put(entry.key, entry.storages)
        entry.state = State.KEPT
        self.counters.high_water_bytes = max(self.counters.high_water_bytes, total_bytes)
        return ""

    def remeasured(self, entry: Entry, storages: Storages) -> None:
        """Take over new *storages*; an entry that grew makes room as a new one would, or is evicted."""
        before_bytes = self.ledger.own_bytes(entry.key)
        entry.storages = storages
        if entry.state is not State.KEPT or self.entries.get(entry.key) is not entry:
            return
        self.ledger.remove(entry.key)
        entry.state = State.LENT
        refusal = self._put(entry) if self.ledger.added_bytes(storages) <= before_bytes else self.keep(entry)
        if refusal:
            self._gone(entry, f"it takes {megabytes(entry.size_bytes)} now: {refusal}", "no room")

    def note_absent(self, key: Hashable) -> None:
        """Remember that the file of *key* has no such part."""
        self.absent[key] = None
        while len(self.absent) > ABSENT_LIMIT:
            self.absent.popitem(last=False)

    def evict(self, entry: Entry, why: str, kind: str) -> None:
        """Stop keeping *entry*. In use, it becomes LENT; else it is dropped at the next flush."""
        self.ledger.remove(entry.key)
        entry.state = State.LENT
        self._gone(entry, why, kind)

    def evict_replaced(self, key: Hashable) -> None:
        """Evict what was loaded from the files that *key* names while they were other files."""
        files, paths = getattr(key, "files", ()), getattr(key, "paths", ())
        for entry in list(self.entries.values()) if paths else ():
            if getattr(entry.key, "paths", ()) == paths and getattr(entry.key, "files", ()) != files and entry.state is State.KEPT:
                self.evict(entry, "its file was replaced", "file changed")

    def _gone(self, entry: Entry, why: str, kind: str) -> None:
        self.counters.evictions[kind] = self.counters.evictions.get(kind, 0) + 1
        self.reasons.left(entry.key, f"evicted ({why})", self._wall_clock())
        self.log.append((logging.INFO, f"RAM model cache: evicted {entry.label} ({megabytes(entry.size_bytes)}): {why}"))
        if not entry.in_use:
            self._forget(entry)

    def _forget(self, entry: Entry | None) -> None:
        """Take *entry* out of the books, whoever uses it, and leave it to the drop queue."""
        if entry is None or self.entries.get(entry.key) is not entry:
            return
        del self.entries[entry.key]
        self.by_patcher.pop(id(patcher_of(entry.value)), None)
        for watch in entry.watches:
            del self._watched[watch]
        entry.watches.clear()
        self._drops.add(entry)

    # Users

    def watch(self, entry: Entry, patcher: Any) -> None:
        """Count *entry* as in use until *patcher*, a clone's, dies."""
        if self.entries.get(entry.key) is entry:
            watch = weakref.ref(patcher, self.ended.append)
            self._watched[id(watch)] = (watch, entry)
            entry.watches.add(id(watch))
            entry.restore_due = True

    def owner_of(self, loaded_model: Any, base: Any) -> Entry | None:
        """The entry whose patcher is *base*, or, where that is gone from *loaded_model* already, the one it was noted for."""
        entry = self.by_patcher.get(id(base)) if base is not None else None
        if entry is None:
            entry = next(
                (
                    entry
                    for entry in self.entries.values()
                    if id(loaded_model) in entry.loaded and entry.loaded[id(loaded_model)]() is loaded_model
                ),
                None,
            )
        return entry

    def note_move(self, entry: Entry, loaded_model: Any, arrives: bool) -> None:
        """Note that the host has put *loaded_model* on its list, or has taken it off and detached its finalizer."""
        if arrives:
            entry.loaded[id(loaded_model)] = weakref.ref(loaded_model)
            self.counters.reclaims += 1
        else:
            entry.loaded.pop(id(loaded_model), None)
            self.counters.vram_evictions += 1

    def drain(self) -> None:
        """Act on the clones that died since the last operation; forget LENT entries nobody uses any more."""
        while self.ended:
            watch = id(self.ended.popleft())
            if watch in self._watched:
                self._watched[watch][1].watches.discard(watch)
                del self._watched[watch]
        for entry in list(self.entries.values()):
            if entry.state is State.LENT and not entry.in_use:
                self._forget(entry)

    # Room

    def reserve(self, key: Hashable, size_bytes: int, hold: bool) -> bool:
        """Decide on *key* before it is read, and make and set aside its room; whether it is to be kept."""
        self.release(key)
        decision = self._decide(key, size_bytes, hold)
        if decision.admit:
            self._evict_victims(decision, key)
            self._reserved[key] = size_bytes
        else:
            self._refused[key] = (size_bytes, decision.reason)
        return decision.admit

    def release(self, key: Hashable) -> None:
        """Forget what was reserved or refused for *key*."""
        self._reserved.pop(key, None)
        self._refused.pop(key, None)

    def reserved_bytes(self) -> int:
        """Bytes set aside for loads in progress."""
        return sum(self._reserved.values())

    def relieve(self, wanted_bytes: int, why: str) -> None:
        """Evict what nobody uses, least valuable first, until *wanted_bytes* are freed; entries in use would free nothing."""
        for key in self.policy.eviction_order(self._own_bytes(idle_only=True), *self._classes()):
            if wanted_bytes <= 0:
                break
            wanted_bytes -= self.ledger.own_bytes(key)
            self.evict(self.entries[key], why, "memory pressure")

    def watch_pressure(self, available_bytes: int) -> None:
        """Shrink when less than the headroom is left; until half as much again is free, the cache does not grow."""
        headroom, release = self.settings.headroom, int(self.settings.headroom * PRESSURE_RELEASE)
        if available_bytes < headroom:
            if not self.under_pressure:
                self.log.append(
                    (
                        logging.WARNING,
                        (
                            f"RAM model cache: {megabytes(available_bytes)} of RAM left, {megabytes(headroom)} are to stay free; "
                            f"the cache shrinks and does not grow until {megabytes(release)} are free"
                        ),
                    )
                )
            self.under_pressure = True
            self.relieve(release - available_bytes, "memory pressure")
        elif available_bytes >= release:
            self.under_pressure = False

    def expire(self, now_s: float) -> None:
        """Evict what was idle for the time-out; held entries stay."""
        ttl_s = self.settings.ttl_s
        if ttl_s is None:
            return
        for entry in list(self.entries.values()):
            idle_s = now_s - entry.used_s
            if entry.state is State.KEPT and not entry.in_use and not entry.held and idle_s >= ttl_s:
                self.evict(entry, f"{idle_s:.0f} s without use", "idle")

    def _decide(self, key: Hashable, added_bytes: int, hold: bool) -> Decision:
        """Ask the policy with what is really free: no single eviction frees storages that several entries share."""
        own = self._own_bytes()
        shared_bytes = self.ledger.total_bytes - sum(own.values())
        limit = self.ledger.total_bytes if self.under_pressure else self.settings.cap_bytes
        others_reserved = sum(size for other, size in self._reserved.items() if other != key)
        first, held = self._classes()
        if hold or self._is_pending(key):
            first = first | {key}
        decision = self.policy.decide(key, added_bytes, limit - shared_bytes - others_reserved, own, first, held - {key})
        if decision.admit:
            return decision
        if self.under_pressure:
            return replace(decision, reason="memory pressure")
        crowded = decision.reason == TOO_BIG and added_bytes <= self.settings.cap_bytes
        return replace(decision, reason="no room beside held, shared and loading models") if crowded else decision

    def _evict_victims(self, decision: Decision, key: Hashable) -> None:
        for victim in decision.victims:
            self.evict(self.entries[victim], f"room needed for {label_of(key)}", "room")

    def _own_bytes(self, idle_only: bool = False) -> dict[Hashable, int]:
        return {
            key: self.ledger.own_bytes(key)
            for key, entry in self.entries.items()
            if entry.state is State.KEPT and not (idle_only and entry.in_use)
        }

    def _classes(self) -> tuple[frozenset[Hashable], frozenset[Hashable]]:
        """Keys that pending prompts name, and keys that are held."""
        return (
            frozenset(key for key in self.entries if self._is_pending(key)),
            frozenset(key for key, entry in self.entries.items() if entry.held),
        )

    def _is_pending(self, key: Hashable) -> bool:
        return not self.pending_paths.isdisjoint(getattr(key, "paths", ()))

    # Figures

    def lent_bytes(self) -> int:
        """Bytes of LENT entries that no KEPT one counts."""
        lent = {storage: size for entry in self.entries.values() if entry.state is State.LENT for storage, size in entry.storages.items()}
        return self.ledger.added_bytes(lent)

    def check(self, measured: Mapping[Hashable, Storages]) -> list[str]:
        """What does not hold, in words; *measured* says what the KEPT entries really use."""
        wrong: list[str] = []
        cap_bytes, reserved_bytes = self.settings.cap_bytes, self.reserved_bytes()
        self.ledger.check(measured, wrong.append)
        if self.ledger.total_bytes + reserved_bytes > cap_bytes:
            wrong.append(f"{self.ledger.total_bytes} bytes kept and {reserved_bytes} reserved exceed the cap of {cap_bytes}")
        if self.by_patcher.keys() != {id(patcher_of(entry.value)) for entry in self.entries.values()}:
            wrong.append("the index by patcher does not match the entries")
        if {watch for entry in self.entries.values() for watch in entry.watches} != self._watched.keys():
            wrong.append("clones are watched for entries that are gone, or the other way round")
        for entry in self.entries.values():
            if entry.state is State.LENT and not entry.in_use:
                wrong.append(f"{entry.label} is neither kept nor used")
            if entry.busy < 0 or any(size < 0 for size in entry.storages.values()):
                wrong.append(f"{entry.label} has negative counts: {entry.busy} busy, {entry.size_bytes} bytes")
        return wrong
