"""Results that were computed before: equal parameters and code give the former tensors again.

For what nodes compute beside a patched model and what is the same in run after run: face embeddings, tokens of an image, keys and values of
constant tokens. Portable: torch and the modules beside it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from comfy.patch_identity.fingerprints import Fingerprints
from comfy.patch_identity.reuse_figures import ReuseFigures
from comfy.units import MIB

MAX_ENTRIES = 256
MAX_BYTES = 512 * MIB
log = logging.getLogger(__name__)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    value: Any
    digest: bytes
    size_bytes: int
    seconds: float


@dataclass(slots=True)
class _Books:
    entries: OrderedDict[bytes, _Entry] = field(default_factory=OrderedDict)
    total_bytes: int = 0
    figures: ReuseFigures = field(default_factory=ReuseFigures)

    def drop(self, key: bytes) -> None:
        """Forget *key*, if it is there."""
        entry = self.entries.pop(key, None)
        self.total_bytes -= 0 if entry is None else entry.size_bytes


class ContentMemo:
    """Keeps up to *max_entries* results and *max_bytes* of tensors; those used longest ago go first.

    Used on the thread that runs nodes; any thread may ask for figures.
    """

    def __init__(
        self,
        prints: Fingerprints,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._prints = prints
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._books = _Books()

    def remembered(self, params: Any, compute: Callable[[], Value]) -> Value:
        """What ``compute()`` gives, or gave before, if *params* and *compute* have the same contents as then.

        *params* names every value that the result depends on; *compute* counts with its code, defaults and captured variables. The result
        is made of tensors, numbers, texts and containers, and is shared: it is not to be changed. One that was is computed again. What
        cannot be compared is computed each time. Raises what *compute* raises.
        """
        started_s = self._clock()
        known = self._prints.of((params, compute))
        key = b"" if known.reason else known.digest
        entry = self._find(key) if key else None
        if entry is not None:
            with self._lock:
                self._books.figures.hit(entry.seconds - (self._clock() - started_s))
            kept: Value = entry.value
            return kept
        with torch.inference_mode(False), torch.no_grad():  # changes to what is made here can be seen
            value = compute()
        seconds = self._clock() - started_s
        with self._lock:
            self._books.figures.made_seconds += seconds
            if not key:
                self._books.figures.incomparable(known.reason)
                return value
            self._books.figures.misses += 1
        self._keep(key, value, seconds)
        return value

    def clear(self) -> int:
        """Forget everything; returns the bytes of tensors that were kept."""
        with self._lock:
            kept_bytes = self._books.total_bytes
            self._books.entries.clear()
            self._books.total_bytes = 0
        return kept_bytes

    def describe(self) -> dict[str, Any]:
        """Figures as plain data, for ``GET /caches``; sizes in bytes, times in seconds, *reasons* with how often each came up."""
        with self._lock:
            return {
                "entries": len(self._books.entries),
                "bytes": self._books.total_bytes,
                "max_entries": self.max_entries,
                "max_bytes": self.max_bytes,
                **self._books.figures.described(),
            }

    def check(self) -> list[str]:
        """What does not hold of the books, in words."""
        with self._lock:
            found = []
            if len(self._books.entries) > self.max_entries or self._books.total_bytes > self.max_bytes:
                found.append(f"{len(self._books.entries)} entries of {self._books.total_bytes} bytes are over the bounds")
            counted = sum(entry.size_bytes for entry in self._books.entries.values())
            if counted != self._books.total_bytes:
                found.append(f"the entries hold {counted} bytes, the books say {self._books.total_bytes}")
            return found

    def _find(self, key: bytes) -> _Entry | None:
        with self._lock:
            entry = self._books.entries.get(key)
            if entry is not None:
                self._books.entries.move_to_end(key)
        if entry is None or self._prints.of(entry.value).digest == entry.digest:
            return entry
        with self._lock:
            self._books.figures.outdated += 1
            self._books.drop(key)
        return None

    def _keep(self, key: bytes, value: Any, seconds: float) -> None:
        found = self._prints.of(value)
        size_bytes = sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(value)}.values())
        reason = found.reason or (f"a result takes {size_bytes} bytes, {self.max_bytes} may be kept" if size_bytes > self.max_bytes else "")
        with self._lock:
            if reason:
                self._books.figures.not_kept(reason)
                return
            self._books.drop(key)
            while self._books.entries and (
                len(self._books.entries) >= self.max_entries or self._books.total_bytes + size_bytes > self.max_bytes
            ):
                self._books.figures.evictions += 1
                self._books.drop(next(iter(self._books.entries)))
            self._books.entries[key] = _Entry(value, found.digest, size_bytes, seconds)
            self._books.total_bytes += size_bytes


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from _tensors(item)
