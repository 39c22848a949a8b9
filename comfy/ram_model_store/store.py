"""The store of one server: parts are found, claimed, written and let go here. Many servers share one folder, each with one of these.

Locks, in order: the byte of a part (held by who reads it from the disk, while others wait), then the books (moments). No lock of this
process is held while either is taken. Nothing here may break a prompt: where the store cannot be used, that is said once and models are
read as without it.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.values import UNLIMITED_BYTES
from comfy.ram_model_store import locks, uses
from comfy.ram_model_store.checking import Checker, Due
from comfy.ram_model_store.folder import PART, WRITING, OpenFolder, StoreFolder, StoreRefused
from comfy.ram_model_store.locks import HeldLock, StoreBusy
from comfy.ram_model_store.mapping import MappedPart, address_of, map_part, open_shared
from comfy.ram_model_store.part_format import PAGE_BYTES, SourceFacts, StoredPartError
from comfy.ram_model_store.room import Removed, StoreRoom
from comfy.ram_model_store.uses import Found, Use
from comfy.ram_model_store.writing import PartWriter
from comfy.units import MIB, megabytes

if TYPE_CHECKING:
    from torch import Tensor

fcntl = lazy_module("fcntl")  # Windows has none
log = logging.getLogger(__name__)
TABLE_ROOM_BYTES = MIB
OBSTACLES = (OSError, StoreRefused, StoreBusy)


@dataclass(frozen=True, slots=True)
class PartKey:
    """A part by its file's *name*, the whole *text* of its key, and a *label* for people."""

    name: str
    text: str
    label: str


@dataclass(slots=True)
class StoreCounters:
    """What this server did with the store since its start; *evictions* by reason."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    stored_bytes: int = 0
    refusals: int = 0
    damaged: int = 0
    leftovers: int = 0
    evictions: dict[str, int] = field(default_factory=dict)


class RamModelStore:
    """Parts in *folder*, up to *cap_bytes* of all servers together. Any thread; ``_lock`` guards the books of this process only.

    *available_bytes* tells how much RAM can still be had, *wall_clock* counts seconds since the epoch.
    """

    def __init__(
        self,
        folder: StoreFolder,
        cap_bytes: int,
        available_bytes: Callable[[], int] = lambda: UNLIMITED_BYTES,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises ``StoreRefused`` for a folder that may not be used, ``OSError``, and ``StoreBusy``. Leftovers go."""
        self.folder, self.cap_bytes, self._available_bytes = folder, cap_bytes, available_bytes
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._mapped: dict[tuple[str, int], list[tuple[int, weakref.ref[mmap.mmap]]]] = {}  # with addresses
        self._labels: dict[str, str] = {}
        self._counters = StoreCounters()
        self._said: set[str] = set()
        self.checker = Checker(folder)
        self.makes_twins = False
        self._twins: weakref.WeakKeyDictionary[mmap.mmap, Tensor] = weakref.WeakKeyDictionary()
        with self._at_books() as room:
            self._note_leftovers(room.sweep())

    # Looking up

    def find(self, key: PartKey, again: bool = False) -> MappedPart | None:
        """The part of *key*, mapped; None where it is not in the store. *again*: this is no new request."""
        try:
            with locks.books(self.folder), self.folder.opened() as opened:
                found = self._opened_part(opened, key)
                if found is None and not again:
                    uses.note(opened, [Use(key.name, Found.NOWHERE, self._wall_clock())])
            part = None if found is None else self._mapped_part(found, key)
            if part is not None:
                self._note_uses([Use(key.name, Found.STORE, self._wall_clock(), part.head.file_bytes, part.head.seconds)])
        except OBSTACLES as error:
            self._say_once(str(error))
            return None
        with self._lock:
            self._counters.hits += part is not None
            self._counters.misses += part is None and not again
        return part

    def _opened_part(self, opened: OpenFolder, key: PartKey) -> int | None:
        try:
            return open_shared(opened, key.name, self.makes_twins)
        except StoredPartError as error:
            self._remove_damaged(opened, key, error)
            return None

    def _mapped_part(self, descriptor: int, key: PartKey) -> MappedPart | None:
        inode = os.fstat(descriptor).st_ino
        try:
            part = map_part(descriptor, key.name, key.text, inode, self.makes_twins)
        except StoredPartError as error:
            with self.folder.opened() as opened:
                self._remove_damaged(opened, key, error)
            return None
        self._note_mapped(key, inode, [part.mapping], [part.twin])
        return part

    def _remove_damaged(self, opened: OpenFolder, key: PartKey, error: StoredPartError) -> None:
        opened.remove(key.name)
        log.warning("RAM model store: %s in %s was removed and is read again: %s", key.label, self.folder.path, error)
        with self._lock:
            self._counters.damaged += 1

    def check_soon(self, part: MappedPart, key: PartKey, on_damage: Callable[[], object]) -> None:
        """Look, in the background, whether the weights of *part* are those that were stored; once for each file that is mapped.

        Where they are not the file goes, an error is logged, and *on_damage* is called.
        """

        def damaged(what: str) -> None:
            on_damage()
            with self.folder.opened() as opened:
                opened.remove(key.name)
            with self._lock:
                self._counters.damaged += 1
            log.error(
                "RAM model store: the weights of %s changed in memory after they were stored (%s); they were removed, the model is read "
                "again at its next use, and what was made with it since %s may be wrong",
                key.label,
                what,
                time.strftime("%H:%M:%S", time.localtime(mapped_s)),
            )

        mapped_s = self._wall_clock()
        self.checker.add(Due(part.name, part.inode, part.table, damaged))

    def note_uses(self, keys: Collection[PartKey]) -> None:
        """This server had *keys* in memory when they were asked for."""
        try:
            self._note_uses([Use(key.name, Found.SERVER, self._wall_clock()) for key in keys])
        except OBSTACLES as error:
            self._say_once(str(error))

    def _note_uses(self, found: list[Use]) -> None:
        with locks.books(self.folder), self.folder.opened() as opened:
            uses.note(opened, found)

    # Writing

    def claim(self, key: PartKey, check: Callable[[], None], wait: bool = True) -> HeldLock | None:
        """The right to read *key* from the disk, alone on this machine: waited for while another process does; None where there is no
        store, or, without *wait*, somebody else has it. *check* is called while waiting, and may raise.
        """
        byte = locks.byte_of(key.name)
        try:
            held = locks.try_lock(self.folder, byte)
            if held is None and wait:
                log.info("RAM model store: another server reads %s; waiting for it", key.label)
                held = locks.lock(self.folder, byte, check)
            return held
        except OBSTACLES as error:
            self._say_once(str(error))
            return None

    def begin(self, key: PartKey, size_bytes: int) -> PartWriter | None:
        """A file for the part *key* that takes about *size_bytes*; None where it is not to be stored, which is said."""
        needed_bytes = size_bytes + PAGE_BYTES + TABLE_ROOM_BYTES
        try:
            with self._at_books() as room:
                self._note_leftovers(room.sweep())
                why, gone = room.make(key.name, needed_bytes)
                why = why or ("too little RAM is free" if self._available_bytes() < needed_bytes else "")
                temporary, descriptor = ("", -1) if why else self._new_file(key, needed_bytes)
            self._note_removed(gone)
            writer = None if why else self._new_writer(key, temporary, descriptor, needed_bytes)
        except OBSTACLES as error:
            self._say_once(str(error))
            return None
        if writer is None:
            log.info("RAM model store: %s (%s) is not stored: %s", key.label, megabytes(size_bytes), why)
            with self._lock:
                self._counters.refusals += 1
        return writer

    def _new_file(self, key: PartKey, size_bytes: int) -> tuple[str, int]:
        """(name, descriptor) of a locked file that counts as *size_bytes* from now on; the books are locked."""
        temporary = f"{key.name.removesuffix(PART)}.{uuid.uuid4().hex[:16]}{WRITING}"
        with self.folder.opened() as opened:
            descriptor = opened.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, size_bytes)
        return temporary, descriptor

    def _new_writer(self, key: PartKey, temporary: str, descriptor: int, size_bytes: int) -> PartWriter:
        """For the new file, whose memory is set aside now: that may take a second, in which others use the books."""
        writer = PartWriter(self.folder, key.name, temporary, descriptor, size_bytes)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except BaseException:
            writer.abandon()
            raise
        return writer

    def finish(self, writer: PartWriter, key: PartKey, sources: Collection[SourceFacts], seconds: float) -> bool:
        """Complete what *writer* wrote, which took *seconds* to read; whether it is in the store now. Why not is said."""
        try:
            if writer.problem:
                raise StoredPartError(writer.problem)
            inode = os.fstat(writer.descriptor()).st_ino
            twins = writer.twins() if self.makes_twins else []
            stored_bytes = writer.finish(key.text, key.label, tuple(sources), seconds)
        except (*OBSTACLES, StoredPartError) as error:
            log.warning("RAM model store: %s could not be stored and is in this server's own memory: %s", key.label, error)
            self.abandon(writer)
            return False
        self._note_mapped(key, inode, writer.mappings, twins)
        with self._lock:
            self._counters.stored += 1
            self._counters.stored_bytes += stored_bytes
        log.info("RAM model store: stored %s (%s)", key.label, megabytes(stored_bytes))
        return True

    def abandon(self, writer: PartWriter) -> None:
        """Take away what *writer* has begun."""
        try:
            writer.abandon()
        except OBSTACLES as error:
            self._say_once(str(error))

    # Letting go

    def relieve(self, wanted_bytes: int) -> int:
        """Free *wanted_bytes* of RAM: parts that nobody uses go, then names of those that only wait for this server to let go of them.

        Returns the bytes that are free at once.
        """
        if wanted_bytes <= 0:
            return 0
        gone: list[Removed] = []
        mine = self._mapped_names()
        try:
            with self._at_books() as room:
                gone = room.free(wanted_bytes, "memory pressure", mine.__contains__)
        except OBSTACLES as error:
            self._say_once(str(error))
        self._note_removed(gone)
        return sum(one.size_bytes for one in gone if not one.is_mapped)

    def clear(self, why: str) -> int:
        """Remove every part that no other process uses; returns their bytes. What this process has mapped it lets go of when it likes."""
        gone: list[Removed] = []
        mine = self._mapped_names()
        try:
            with self._at_books() as room:
                gone = room.remove_all(why, mine.__contains__)
        except OBSTACLES as error:
            self._say_once(str(error))
        self._note_removed(gone)
        return sum(one.size_bytes for one in gone)

    # Books of this process

    @contextmanager
    def _at_books(self) -> Iterator[StoreRoom]:
        with locks.books(self.folder), self.folder.opened() as opened:
            yield StoreRoom(opened, self.cap_bytes)

    def _note_mapped(self, key: PartKey, inode: int, mappings: Collection[mmap.mmap], twins: Collection[Tensor | None] = ()) -> None:
        found = [(address_of(one), weakref.ref(one)) for one in mappings]
        with self._lock:
            self._twins.update((mapping, twin) for mapping, twin in zip(mappings, twins) if twin is not None)
            self._labels[key.name] = key.label
            self._mapped.setdefault((key.name, inode), []).extend(found)

    def mapped(self) -> dict[tuple[str, int], int]:
        """{(name, inode): bytes} of what this process has mapped now, parts that left the store included."""
        with self._lock:
            self._mapped = {
                place: alive for place, known in self._mapped.items() if (alive := [one for one in known if one[1]() is not None])
            }
            return {place: sum(_length(reference) for _, reference in known) for place, known in self._mapped.items()}

    def holds(self, address: int, size_bytes: int) -> bool:
        """Whether memory at *address* is a stored part's, or was until the part left the store."""
        with self._lock:
            known = [one for alive in self._mapped.values() for one in alive]
        return any(start < address + size_bytes and address < start + _length(reference) for start, reference in known)

    def twin_of(self, address: int, size_bytes: int) -> Tensor | None:
        """The *size_bytes* of the file that lie at *address*, as bytes in memory that may be page-locked; None where there are none."""
        with self._lock:
            known = [one for alive in self._mapped.values() for one in alive]
        for start, reference in known:
            mapping = reference() if start <= address else None
            twin = None if mapping is None or address + size_bytes > start + len(mapping) else self._twins.get(mapping)
            if twin is not None:
                return twin[address - start : address - start + size_bytes]
        return None

    def _mapped_names(self) -> set[str]:
        return {name for name, _ in self.mapped()}

    def label(self, name: str) -> str:
        """What this server knows the part *name* as, "" if it never met it."""
        with self._lock:
            return self._labels.get(name, "")

    def counters(self) -> dict[str, Any]:
        """The counters, by name."""
        with self._lock:
            return asdict(self._counters)

    def _note_removed(self, gone: Collection[Removed]) -> None:
        for one in gone:
            later = "; its memory goes when the last process lets go of it" if one.is_mapped else ""
            what = self.label(one.name) or one.name
            log.info("RAM model store: removed %s (%s): %s%s", what, megabytes(one.size_bytes), one.why, later)
        with self._lock:
            for one in gone:
                self._counters.evictions[one.why] = self._counters.evictions.get(one.why, 0) + 1

    def _note_leftovers(self, names: Collection[str]) -> None:
        for name in names:
            log.info("RAM model store: removed %s, which a process that ended left unfinished", name)
        with self._lock:
            self._counters.leftovers += len(names)

    def _say_once(self, what: str) -> None:
        if self._is_new(what):
            log.warning("RAM model store: %s cannot be used, models are read as without it: %s", self.folder.path, what)

    def _is_new(self, what: str) -> bool:
        """Whether *what* was not said before."""
        with self._lock:
            is_new = what not in self._said
            self._said.add(what)
        return is_new


def _length(reference: weakref.ref[mmap.mmap]) -> int:
    mapping = reference()
    return 0 if mapping is None else len(mapping)
