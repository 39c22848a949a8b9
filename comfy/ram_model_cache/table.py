"""The books of the RAM model cache: entries, reservations, bytes, and who makes room for whom.

Not thread-safe: the cache's lock is held around every call. Nothing here blocks, logs, measures tensors, calls the owner or drops a
model; what must go is put into the drop queue, what is to be logged into the journal. Portable: standard library only.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from comfy.ram_model_cache.clones import CloneWatch
from comfy.ram_model_cache.drops import DropQueue
from comfy.ram_model_cache.journal import Journal
from comfy.ram_model_cache.models import LoadedModel, Patcher
from comfy.ram_model_cache.pending import PendingFiles
from comfy.ram_model_cache.policy import TOO_BIG, Decision, RamCachePolicy
from comfy.ram_model_cache.receipts import current_prompt
from comfy.ram_model_cache.reservations import Reservations
from comfy.ram_model_cache.states import State
from comfy.ram_model_cache.storage import StorageLedger, Storages, patcher_of
from comfy.ram_model_cache.values import PADDING_SHARE, AheadNote, CacheSettings, CacheStats, Entry, label_of
from comfy.units import megabytes

ABSENT_LIMIT = 4096


class ModelTable:
    """Entries by key: RESERVED ones while they are read, KEPT ones counted against the cap, LENT ones only known."""

    def __init__(self, settings: CacheSettings, policy: RamCachePolicy, drops: DropQueue, journal: Journal) -> None:
        self.settings, self.policy, self.journal = settings, policy, journal
        self.entries: dict[Hashable, Entry] = {}
        self.absent: OrderedDict[Hashable, None] = OrderedDict()
        self.clones, self.ledger, self.loads = CloneWatch(), StorageLedger(), Reservations()
        self.asked: set[Hashable] = set()  # by the running prompt
        self.pending = PendingFiles()
        self.under_pressure = False
        self._drops = drops
        self._by_patcher: dict[int, Entry] = {}
        self._lent: dict[int, Entry] = {}

    # Loading

    def asked_for(self, key: Hashable, pending: PendingFiles) -> Entry | None:
        """The entry of *key*, if there is one; tells the policy of the request, once per key and prompt."""
        self.pending = pending
        in_prompt = current_prompt.get() is not None
        if not in_prompt or key not in self.asked:
            self.policy.request(key)
            self.journal.follows(self.policy.news())
        if in_prompt:
            self.asked.add(key)
        entry = self.entries.get(key)
        if entry is None or entry.ahead is not None:
            self._evict_replaced(key)
        return entry

    def is_absent(self, key: Hashable) -> bool:
        """Whether the file of *key* is known to have no such part; leaves a receipt then."""
        if key in self.absent:
            self.journal.absent(key)
        return key in self.absent

    def reserve(self, key: Hashable, size_bytes: int, hold: bool) -> bool:
        """Decide on *key* before it is read, and make and set aside its room; whether it is to be kept."""
        self.release(key)
        decision = self._decide(key, size_bytes, hold)
        self.loads.begin(key, size_bytes, hold, decision.reason)
        self._evict_victims(decision, key)
        return decision.admit

    def release(self, key: Hashable) -> None:
        """Give back what was reserved for *key*, if anything was."""
        self.loads.end(key)

    def add(self, key: Hashable, value: Any, storages: Storages, seconds: float, hold: bool) -> tuple[Entry, str]:
        """Enter *value*, just loaded for *key* in *seconds*, as KEPT if it may stay, else LENT; returns (its entry, why it was missing)."""
        self.discard(key, "loaded again", "loaded again")  # in a nested flight or without one: the newer one counts
        entry, why = self.loads.take(key, hold), self.journal.reasons.explain(key)
        entry.value, entry.storages, entry.seconds, entry.held = value, storages, seconds, hold
        self.entries[key] = self._by_patcher[id(patcher_of(value))] = entry
        self.journal.reasons.loaded(key)
        self.policy.learn(key, entry.size_bytes, seconds)
        self._place(entry)
        if entry.refusal:
            self._lend(entry)
            self.journal.refused(entry)
        return entry, why

    # Reading ahead

    def ahead_bytes(self) -> int:
        """Bytes of what was read ahead and waits for its loader."""
        return sum(entry.size_bytes for entry in self._lent.values() if entry.ahead is not None)

    def add_ahead(self, key: Hashable, value: Any, storages: Storages, seconds: float, read_bytes: int | None) -> Entry:
        """Enter *value*, read ahead for *key*, as LENT; whoever keeps it for its loader must be watched before the table is drained."""
        entry = self.loads.take(key)
        entry.value, entry.storages, entry.seconds, entry.refusal = value, storages, seconds, ""
        entry.ahead = AheadNote(self.journal.reasons.explain(key))
        self.entries[key] = self._by_patcher[id(patcher_of(value))] = entry
        self.journal.read_ahead(entry, read_bytes)
        self._lend(entry)
        return entry

    def take_ahead(self, entry: Entry, refusal: str, waited_s: float) -> str:
        """The loader of *entry* has it: from now on it is like any other, kept unless *refusal* says why not. Returns the tier."""
        note, entry.ahead, entry.refusal = entry.ahead, None, refusal
        self.entries[entry.key] = self.entries.pop(entry.key)  # among equals the order of asking decides
        self.journal.reasons.loaded(entry.key)
        self.policy.learn(entry.key, entry.size_bytes, entry.seconds)
        if refusal:
            self.journal.refused(entry)
        return self.journal.taken(entry, note.why if note else "", waited_s)

    def _place(self, entry: Entry) -> None:
        """Keep *entry* as was decided before it was read, or decide again where it turned out larger, or smaller than what was refused."""
        added_bytes = self.ledger.added_bytes(entry.storages)
        if entry.refusal and added_bytes >= entry.estimated_bytes:
            return
        if not entry.refusal and added_bytes <= entry.estimated_bytes * (1 + PADDING_SHARE):
            entry.refusal = self._put(entry)
        else:
            entry.refusal = self.keep(entry)

    def keep(self, entry: Entry) -> str:
        """Make *entry* KEPT if the policy agrees; returns why not, or ""."""
        decision = self._decide(entry.key, self.ledger.added_bytes(entry.storages), entry.held)
        if not decision.admit:
            return decision.reason
        self._evict_victims(decision, entry.key)
        return self._put(entry)

    def _put(self, entry: Entry) -> str:
        total_bytes = self.ledger.total_bytes + self.ledger.added_bytes(entry.storages)
        if total_bytes + self.loads.reserved_bytes() > self.settings.cap_bytes:
            return "no room beside loads in progress"
        self.ledger.put(entry.key, entry.storages)
        if entry.state is not State.KEPT:
            entry.become(State.KEPT)
            self._lent.pop(id(entry), None)
        self.journal.counters.high_water_bytes = max(self.journal.counters.high_water_bytes, total_bytes)
        return ""

    def note_absent(self, key: Hashable) -> None:
        """Remember that the file of *key* has no such part."""
        self.absent[key] = None
        while len(self.absent) > ABSENT_LIMIT:
            self.absent.popitem(last=False)

    # Leaving

    def evict(self, entry: Entry, why: str, kind: str) -> None:
        """Stop keeping *entry*. In use, it becomes LENT; else it is dropped at the next flush."""
        self.ledger.remove(entry.key)
        self.journal.evicted(entry, why, kind)
        if not entry.in_use:
            self._doom(entry)
        elif entry.state is State.KEPT:
            self._lend(entry)

    def discard(self, key: Hashable, why: str, kind: str) -> None:
        """Take the entry of *key*, if there is one, out of the books, whoever uses it."""
        if (entry := self.entries.get(key)) is not None:
            self.evict(entry, why, kind)
            self._doom(entry)

    def _evict_replaced(self, key: Hashable) -> None:
        """Evict what was loaded from the files that *key* names while they were other files."""
        files, paths = getattr(key, "files", ()), getattr(key, "paths", ())
        for entry in self._kept() if paths else ():
            if getattr(entry.key, "paths", ()) == paths and getattr(entry.key, "files", ()) != files:
                self.evict(entry, "its file was replaced", "file changed")

    def clear(self, why: str) -> int:
        """Evict everything, held entries too, and forget which files lack which parts; returns the bytes no longer kept."""
        kept_bytes = self.ledger.total_bytes
        for entry in self._kept():
            self.evict(entry, why, "cleared")
        self.absent.clear()
        return kept_bytes

    def shrink(self, why: str) -> None:
        """Evict, held entries too, until the rest fits under the cap."""
        for key in self.policy.eviction_order(self._own_bytes(), *self._classes()):
            if self.ledger.total_bytes > self.settings.cap_bytes:
                self.evict(self.entries[key], why, "no room")

    def expire(self, now_s: float) -> None:
        """Evict what was idle for the time-out; held entries stay."""
        ttl_s = self.settings.ttl_s
        if ttl_s is None:
            return
        for entry in self._kept():
            idle_s = now_s - entry.used_s
            if not entry.in_use and not entry.held and idle_s >= ttl_s:
                self.evict(entry, f"{idle_s:.0f} s without use", "idle")

    def _lend(self, entry: Entry) -> None:
        entry.become(State.LENT)
        self._lent[id(entry)] = entry

    def _doom(self, entry: Entry) -> None:
        """Take *entry* out of the books, whoever uses it, and leave it to the drop queue."""
        if self.entries.get(entry.key) is not entry:
            return
        if entry.ahead is not None:
            self.journal.unused(entry)
        entry.become(State.DOOMED)
        self._lent.pop(id(entry), None)
        del self.entries[entry.key]
        self._by_patcher.pop(id(patcher_of(entry.value)), None)
        self.clones.forget(entry)
        self._drops.add(entry)

    # Users

    def watch(self, entry: Entry, patcher: Patcher) -> None:
        """Count *entry* as in use until *patcher*, a clone's, dies; its base is to be restored then."""
        if self.entries.get(entry.key) is entry:
            self.clones.add(entry, patcher)
            entry.restore_due = True

    def drain(self) -> None:
        """Act on the clones that died since the last operation; doom LENT entries that nobody uses any more."""
        self.clones.note_deaths()
        if self._lent:
            for entry in [entry for entry in self._lent.values() if not entry.in_use]:
                self._doom(entry)

    def of_model(self, loaded_model: LoadedModel, base: Patcher | None) -> Entry | None:
        """The entry whose patcher is *base*, or, where that is gone from *loaded_model* already, the one it was noted for."""
        entry = self._by_patcher.get(id(base)) if base is not None else None
        if entry is not None:
            return entry
        noted = [entry for entry in self.entries.values() if id(loaded_model) in entry.loaded]
        return next((entry for entry in noted if entry.loaded[id(loaded_model)]() is loaded_model), None)

    def note_arrival(self, loaded_model: LoadedModel, base: Patcher | None) -> Entry | None:
        """Note that the owner has put *loaded_model*, whose base is *base*, on its list; returns the entry, if it is one of ours."""
        entry = self.of_model(loaded_model, base)
        if entry is not None:
            entry.loaded[id(loaded_model)] = weakref.ref(loaded_model)
            self.journal.counters.reclaims += 1
        return entry

    def note_departure(self, loaded_model: LoadedModel, base: Patcher | None) -> Entry | None:
        """Note that the owner has taken *loaded_model* off its list and detached its finalizer; returns the entry, if it is one of ours."""
        entry = self.of_model(loaded_model, base)
        if entry is None:
            self._drops.note_detached(loaded_model)
        else:
            entry.loaded.pop(id(loaded_model), None)
            self.journal.counters.vram_evictions += 1
        return entry

    def remeasured(self, entry: Entry, storages: Storages) -> None:
        """Take over new *storages*; an entry that grew makes room as a new one would, or is evicted."""
        before_bytes = self.ledger.own_bytes(entry.key)
        entry.storages = storages
        if entry.state is not State.KEPT:
            return
        self.ledger.remove(entry.key)
        refusal = self._put(entry) if self.ledger.added_bytes(storages) <= before_bytes else self.keep(entry)
        if refusal:
            self.evict(entry, f"it takes {megabytes(entry.size_bytes)} now: {refusal}", "no room")

    def due_for_restore(self) -> list[Hashable]:
        """Keys of the entries whose last clone died since their base was restored."""
        return [key for key, entry in self.entries.items() if entry.restore_due and not entry.in_use]

    def restored(self, entry: Entry, storages: Storages | None) -> None:
        """Note that the base of *entry* has its original weights again, in *storages*; None: it cannot have, and goes."""
        entry.restore_due = False
        if storages is not None:
            self.remeasured(entry, storages)
        elif self.entries.get(entry.key) is entry:
            self.evict(entry, "its original weights could not be restored", "not restored")

    # Room

    def idle_keys(self) -> list[Hashable]:
        """The keys of the kept entries that nobody uses, those to be evicted first leading."""
        return self.policy.eviction_order(self._own_bytes(idle_only=True), *self._classes())

    def relieve(self, wanted_bytes: int, why: str) -> None:
        """Evict what nobody uses, least valuable first, until *wanted_bytes* are freed; entries in use would free nothing."""
        for key in self.idle_keys():
            if wanted_bytes > 0:
                wanted_bytes -= self.ledger.own_bytes(key)
                self.evict(self.entries[key], why, "memory pressure")

    def watch_pressure(self, available_bytes: int) -> None:
        """Shrink when less than the headroom is left; until half as much again is free, the cache does not grow."""
        wanted_bytes, release = self.settings.pressure_bytes(available_bytes), self.settings.release
        if wanted_bytes:
            if not self.under_pressure:
                self.journal.write(
                    f"RAM model cache: {megabytes(available_bytes)} of RAM left, {megabytes(self.settings.headroom)} are to stay free; "
                    f"the cache shrinks and does not grow until {megabytes(release)} are free",
                    logging.WARNING,
                )
            self.under_pressure = True
            self.relieve(wanted_bytes, "memory pressure")
        elif available_bytes >= release:
            self.under_pressure = False

    def _decide(self, key: Hashable, added_bytes: int, hold: bool) -> Decision:
        """Ask the policy with what is really free: no single eviction frees storages that several entries share."""
        own = self._own_bytes()
        shared_bytes = self.ledger.total_bytes - sum(own.values())
        limit = self.ledger.total_bytes if self.under_pressure else self.settings.cap_bytes
        room_bytes = limit - shared_bytes - self.loads.reserved_bytes()
        first, held = self._classes()
        if hold or self.pending.name(key):
            first = first | {key}
        decision = self.policy.decide(key, added_bytes, room_bytes, own, first, held - {key}, self.policy.known.behind(self.pending))
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
        """{key: bytes that evicting it would free} of what the ledger counts."""
        return {k: self.ledger.own_bytes(k) for k, entry in self.entries.items() if k in self.ledger and not (idle_only and entry.in_use)}

    def _classes(self) -> tuple[frozenset[Hashable], frozenset[Hashable]]:
        """Keys that pending prompts name, and keys that are held."""
        return frozenset(filter(self.pending.name, self.entries)), frozenset(key for key, entry in self.entries.items() if entry.held)

    def _kept(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state is State.KEPT]

    def kept_keys(self) -> list[Hashable]:
        """The keys of the entries that are kept."""
        return [entry.key for entry in self._kept()]

    def kept(self, key: Hashable) -> Entry | None:
        """The entry under *key* if it is kept."""
        entry = self.entries.get(key)
        return entry if entry is not None and entry.state is State.KEPT else None

    def is_held(self, key: Hashable) -> bool:
        """Whether the entry under *key* is kept and held."""
        entry = self.kept(key)
        return entry is not None and entry.held

    def hold(self, key: Hashable, held: bool) -> bool:
        """Mark the entry under *key* as held or not; whether there is one."""
        entry = self.entries.get(key)
        if entry is not None:
            entry.held = held
        return entry is not None

    # Figures

    def stats(self) -> CacheStats:
        """Sizes and counters now."""
        kept, known, lent = len(self._kept()), len(self.entries), self._lent_bytes()
        total, reserved, doomed = self.ledger.total_bytes, self.loads.reserved_bytes(), self._drops.waiting_bytes()
        cap, counted = self.settings.cap_bytes, self.journal.counted()
        return CacheStats(cap, total, reserved, lent, doomed, kept, known - kept, self.under_pressure, counted)

    def _lent_bytes(self) -> int:
        """Bytes of LENT entries that no KEPT one counts."""
        lent = {storage: size for entry in self._lent.values() for storage, size in entry.storages.items()}
        return self.ledger.added_bytes(lent)

    def check(self, measured: Mapping[Hashable, Storages]) -> list[str]:
        """What does not hold, in words; *measured* says what the KEPT entries really use."""
        wrong: list[str] = []
        cap_bytes, reserved_bytes = self.settings.cap_bytes, self.loads.reserved_bytes()
        self.ledger.check(measured, wrong.append)
        if self.ledger.total_bytes + reserved_bytes > cap_bytes:
            wrong.append(f"{self.ledger.total_bytes} bytes kept and {reserved_bytes} reserved exceed the cap of {cap_bytes}")
        if self._by_patcher.keys() != {id(patcher_of(entry.value)) for entry in self.entries.values()}:
            wrong.append("the index by patcher does not match the entries")
        if {watch for entry in self.entries.values() for watch in entry.watches} != self.clones.ids():
            wrong.append("clones are watched for entries that are gone, or the other way round")
        if self._lent.keys() != {id(entry) for entry in self.entries.values() if entry.state is State.LENT}:
            wrong.append("the index of lent entries does not match the entries")
        for entry in self.entries.values():
            if entry.state is State.LENT and not entry.in_use:
                wrong.append(f"{entry.label} is neither kept nor used")
            if entry.busy < 0 or any(size < 0 for size in entry.storages.values()):
                wrong.append(f"{entry.label} has negative counts: {entry.busy} busy, {entry.size_bytes} bytes")
        return wrong
