"""Patched models that were built before: equal bases, parameters and code give the former patches again.

What is kept of a built model are its patches, never the model: an entry refers to its base weakly and dies with it. Portable: the standard
library and the modules beside it; what a model is, a :class:`Carrier` knows.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from comfy.patch_identity.fingerprints import Fingerprint, Fingerprints
from comfy.patch_identity.reuse_figures import ReuseFigures
from comfy.ram_model_cache.storage import StorageLedger
from comfy.units import MIB

MAX_ENTRIES = 256
MAX_BYTES = 1024 * MIB
log = logging.getLogger(__name__)


class CannotKeep(ValueError):
    """A built model is not remembered; the text says why."""


class Carrier(Protocol):
    """What the registry needs to know of models."""

    def owner(self, base: Any) -> Any:
        """The object that an entry must not outlive, and that is the same for all clones of a base."""

    def fingerprint(self, base: Any) -> Fingerprint:
        """What *base* is known by, its patches included."""

    def clone(self, base: Any) -> Any:
        """A clone of *base*."""

    def take(self, base: Any, built: Any) -> tuple[Any, Mapping[Hashable, int]]:
        """The patches of *built*, a changed clone of *base*, and {storage: bytes} of their tensors. Raises :class:`CannotKeep`."""

    def state(self, patches: Any) -> bytes:
        """What tells later whether somebody changed *patches*, or what they refer to."""

    def give(self, base: Any, patches: Any) -> Any:
        """A clone of *base* with *patches* in place of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The patches of one built model, for as long as its *owner* lives; *seconds* is what building took."""

    patches: Any
    owner: weakref.ref[Any]
    params: Fingerprint
    state: bytes
    seconds: float


class PatchRegistry:
    """Keeps what was built, up to *max_entries* and *max_bytes* of tensors, those used longest ago go first.

    Models are built on the calling thread without a lock; any thread may ask for figures. A base's death is noted by a weak reference
    whose callback appends to a queue, which the next operation drains.
    """

    def __init__(
        self,
        carrier: Carrier,
        prints: Fingerprints,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._carrier, self._prints = carrier, prints
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: OrderedDict[bytes, Kept] = OrderedDict()
        self._ledger = StorageLedger()
        self._gone: deque[bytes] = deque()
        self._figures = ReuseFigures()

    def patched(self, base: Any, params: Any, build: Callable[[Any], Any]) -> Any:
        """What ``build(clone of base)`` makes, from before if *base*, *params* and *build* have the same contents as then.

        *params* names every value that the result depends on beside *base*; *build* counts with its code, defaults and captured variables.
        It returns the changed clone, or None when it changed the clone it was given. What cannot be compared is built each time. The
        result is the caller's own. Raises what *build* raises. Blocks for as long as building or reading large tensors takes.
        """
        started_s = self._clock()
        key, known, reason = self._key(base, params, build)
        entry = None if reason else self.find(key)
        if entry is not None:
            result = self._carrier.give(base, entry.patches)
            with self._lock:
                self._figures.hit(entry.seconds - (self._clock() - started_s))
            return result
        with torch.inference_mode(False), torch.no_grad():  # changes to what is made here can be seen
            clone = self._carrier.clone(base)
            made = build(clone)
        built = clone if made is None else made
        seconds = self._clock() - started_s
        with self._lock:
            self._figures.made_seconds += seconds
            if reason:
                self._figures.incomparable(reason)
            else:
                self._figures.misses += 1
        if reason:
            log.debug("a patched model is built each time: %s", reason)
            return built
        try:
            self.keep(key, base, built, known, seconds)
        except CannotKeep as why:
            with self._lock:
                self._figures.not_kept(str(why))
            return built
        return self._carrier.clone(built)

    def clear(self) -> int:
        """Forget everything; returns the bytes of tensors that were kept."""
        with self._lock:
            kept_bytes = self._ledger.total_bytes
            for key in list(self._entries):
                self._drop(key)
        return kept_bytes

    def describe(self) -> dict[str, Any]:
        """Figures as plain data, for ``GET /caches``; sizes in bytes, times in seconds, *reasons* with how often each came up."""
        with self._lock:
            self._drain()
            return {
                "entries": len(self._entries),
                "bytes": self._ledger.total_bytes,
                "max_entries": self.max_entries,
                "max_bytes": self.max_bytes,
                "fingerprint_read_bytes": self._prints.tensors.read_bytes,
                **self._figures.described(),
            }

    def check(self) -> list[str]:
        """What does not hold of the books, in words."""
        with self._lock:
            self._drain()
            found = []
            if len(self._entries) > self.max_entries or self._ledger.total_bytes > self.max_bytes:
                found.append(f"{len(self._entries)} entries of {self._ledger.total_bytes} bytes are over the bounds")
            found += [f"entry {key.hex()} outlived its base" for key, entry in self._entries.items() if entry.owner() is None]
            found += [f"entry {key.hex()} is not in the ledger" for key in self._entries if key not in self._ledger]
            return found

    def give(self, base: Any, kept: Kept) -> Any:
        """A clone of *base* with the patches that were kept."""
        return self._carrier.give(base, kept.patches)

    def base_key(self, base: Any) -> tuple[bytes, str]:
        """What *base* is known by, its module included, and why it equals nothing ("" when it may)."""
        own = self._carrier.fingerprint(base)
        owner = "" if own.reason else self._prints.tokens.of(self._carrier.owner(base))
        return own.digest + str(owner).encode(), own.reason

    def _key(self, base: Any, params: Any, build: Callable[[Any], Any]) -> tuple[bytes, Fingerprint, str]:
        """The key, what is known of the parameters, and why there is no key ("" when there is one)."""
        own, reason = self.base_key(base)
        known = self._prints.of((params, build))
        return own + known.digest, known, f"the base: {reason}" if reason else known.reason

    def find(self, key: bytes) -> Kept | None:
        """What was kept under *key* for a base that lives, unless something in it is not what it was then. Reads its tensors."""
        with self._lock:
            self._drain()
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        if entry is None or (entry.params.is_current() and self._carrier.state(entry.patches) == entry.state):
            return entry
        with self._lock:
            self._figures.outdated += 1
            self._drop(key)
        return None

    def keep(self, key: bytes, base: Any, built: Any, params: Fingerprint, seconds: float) -> None:
        """Keep the patches of *built*, a changed clone of *base* that took *seconds*. Raises :class:`CannotKeep`."""
        patches, storages = self._carrier.take(base, built)
        size_bytes, state = sum(storages.values()), self._carrier.state(patches)
        if size_bytes > self.max_bytes:
            raise CannotKeep(f"its patches take {size_bytes} bytes, {self.max_bytes} may be kept")
        gone = self._gone
        owner = weakref.ref(self._carrier.owner(base), lambda _: gone.append(key))
        with self._lock:
            self._drain()
            self._drop(key)
            while self._entries and (
                len(self._entries) >= self.max_entries or self._ledger.total_bytes + self._ledger.added_bytes(storages) > self.max_bytes
            ):
                self._figures.evictions += 1
                self._drop(next(iter(self._entries)))
            self._entries[key] = Kept(patches, owner, params, state, seconds)
            self._ledger.put(key, storages)

    def _drop(self, key: bytes) -> None:
        if self._entries.pop(key, None) is not None:
            self._ledger.remove(key)

    def _drain(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            entry = self._entries.get(key)
            if entry is not None and entry.owner() is None:
                self._figures.base_gone += 1
                self._drop(key)
