"""What the RAM model cache did, written down where it happens: counters, receipts, reasons of misses, lines for the log.

Portable: standard library only. The cache's lock guards everything here; the lines are logged later, without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import replace

from comfy.ram_model_cache.policy import Followed
from comfy.ram_model_cache.receipts import Counters, MissReasons, Receipt, ReceiptBook
from comfy.ram_model_cache.states import State
from comfy.ram_model_cache.values import Entry, label_of
from comfy.units import megabytes


class Journal:
    """Counters since the cache was made, the receipts of prompts, and why keys are missing. *wall_clock*: seconds since the epoch."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.counters, self.reasons, self.book = Counters(), MissReasons(), ReceiptBook()
        self._wall_clock = wall_clock
        self._lines: list[tuple[int, str]] = []

    def write(self, text: str, level: int = logging.INFO) -> None:
        """Have a line logged once the lock is free."""
        self._lines.append((level, text))

    def follows(self, news: Followed | None) -> None:
        """Another policy decides from now on, if there are *news*."""
        if news is not None:
            self.write(
                f"RAM model cache: from now on kept by {news.now}, not by {news.before}: of the last requests that would have saved "
                f"{news.now_s:.1f} s of loading, against {news.before_s:.1f} s"
            )

    def take_lines(self) -> list[tuple[int, str]]:
        """(level, text) of what was written since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def counted(self) -> Counters:
        """A copy of the counters."""
        return replace(self.counters, evictions=dict(self.counters.evictions))

    def hit(self, entry: Entry) -> str:
        """A clone of *entry* was handed out; returns the tier it came from."""
        tier = "in use" if entry.state is not State.KEPT else "vram" if entry.on_devices else "ram"
        self.counters.hits += 1
        self.counters.saved_seconds += entry.seconds
        self.book.add(Receipt(entry.label, tier, entry.size_bytes, entry.seconds, entry.state is State.KEPT))
        return tier

    def loaded(self, entry: Entry, why: str, read_bytes: int | None, tier: str = "disk") -> None:
        """*entry* was read, or is in the store where *tier* says so, because of *why*; None: its bytes were read."""
        self.counters.misses += 1
        self.counters.read_bytes += entry.size_bytes if read_bytes is None else read_bytes
        story = f"{why}; not kept: {entry.refusal}" if entry.refusal else why
        self.book.add(Receipt(entry.label, tier, entry.size_bytes, entry.seconds, not entry.refusal, story))
        if tier == "store":
            self.counters.from_store += 1
            self.counters.saved_seconds += entry.seconds
            self.write(f"RAM model cache: {entry.label} ({megabytes(entry.size_bytes)}) is in the store: {story}")
            return
        self.write(f"RAM model cache: loaded {entry.label} ({megabytes(entry.size_bytes)} in {entry.seconds:.2f} s): {story}")

    def read_ahead(self, entry: Entry, read_bytes: int | None) -> None:
        """*entry* was read before its loader asked; None: its bytes were."""
        self.counters.read_ahead += 1
        self.counters.read_bytes += entry.size_bytes if read_bytes is None else read_bytes
        self.write(f"RAM model cache: read ahead {entry.label} ({megabytes(entry.size_bytes)} in {entry.seconds:.2f} s)")

    def taken(self, entry: Entry, why: str, waited_s: float) -> str:
        """The loader of *entry*, which was read ahead because of *why*, has it now, after *waited_s*; returns the tier."""
        hidden_s = max(0.0, entry.seconds - waited_s)
        self.counters.misses += 1
        self.counters.hidden_seconds += hidden_s
        story = f"{why}; not kept: {entry.refusal}" if entry.refusal else why
        self.book.add(Receipt(entry.label, "ahead", entry.size_bytes, hidden_s, not entry.refusal, story))
        return "ahead"

    def unused(self, entry: Entry) -> None:
        """*entry* was read ahead and is dropped before its loader asked."""
        self.counters.ahead_unused += 1
        self.write(f"RAM model cache: {entry.label} was read ahead and is not needed any more", logging.DEBUG)

    def refused(self, entry: Entry) -> None:
        """*entry* was read and is not kept."""
        self.counters.refusals += 1
        self.reasons.left(entry.key, f"not kept ({entry.refusal})", self._wall_clock())

    def evicted(self, entry: Entry, why: str, kind: str) -> None:
        """*entry* is not kept any more."""
        self.counters.evictions[kind] = self.counters.evictions.get(kind, 0) + 1
        self.reasons.left(entry.key, f"evicted ({why})", self._wall_clock())
        self.write(f"RAM model cache: evicted {entry.label} ({megabytes(entry.size_bytes)}): {why}")

    def uncached(self, key: Hashable, why: str, seconds: float, read_bytes: int) -> None:
        """What was read for *key* cannot be cached."""
        self.counters.misses += 1
        self.counters.refusals += 1
        self.counters.read_bytes += read_bytes
        self.book.add(Receipt(label_of(key), "disk", read_bytes, seconds, False, f"not kept: {why}"))

    def absent(self, key: Hashable) -> None:
        """*key* was asked for, and is known to name nothing."""
        self.book.add(Receipt(label_of(key), "none", 0, 0.0, False, "the file has no such part"))

    def failed(self, key: Hashable) -> None:
        """The load of *key* failed."""
        self.counters.failures += 1
        self.book.add(Receipt(label_of(key), "disk", 0, 0.0, False, "the load failed"))

    def bypassed(self, label: str, reason: str, tier: str = "bypass") -> None:
        """A load ran without the cache; or, with the *tier* ``unique``, patches were computed that cannot be known again."""
        self.book.add(Receipt(label, tier, 0, 0.0, False, reason))
        if tier == "bypass":
            self.counters.bypasses += 1
            self.write(f"RAM model cache: {label} is loaded without it: {reason}")
