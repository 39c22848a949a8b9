"""What is known about one cache provider's work so far."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

LATENCY_SAMPLES = 512


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """A moment's numbers. *errors* counts failed calls of every kind, *timeouts* those of them that took too long.

    *not_stored* counts results given up: the queue was full, the circuit open, or the result had been changed in place.
    """

    name: str
    state: str
    hits: int
    misses: int
    errors: int
    timeouts: int
    stores: int
    not_stored: int
    bytes_fetched: int
    bytes_stored: int
    lookup_p50_s: float | None
    lookup_p95_s: float | None
    queued: int
    queued_bytes: int


class ProviderCounters:
    """The running totals behind ``ProviderStats``. Any thread; never blocks."""

    NAMES = ("hits", "misses", "errors", "timeouts", "stores", "not_stored", "bytes_fetched", "bytes_stored")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(self.NAMES, 0)
        self._lookups_s: deque[float] = deque(maxlen=LATENCY_SAMPLES)

    def add(self, **amounts: int) -> None:
        """Add to the totals named in ``NAMES``."""
        with self._lock:
            for name, amount in amounts.items():
                self._totals[name] += amount

    def stored(self, size_bytes: int) -> None:
        """Note that one result was stored."""
        with self._lock:
            self._totals["stores"] += 1
            self._totals["bytes_stored"] += size_bytes

    def looked_up(self, took_s: Iterable[float], **amounts: int) -> None:
        """Note how long answered lookups took, and add to the totals."""
        with self._lock:
            self._lookups_s.extend(took_s)
        self.add(**amounts)

    def stats(self, name: str, state: str, queued: int, queued_bytes: int) -> ProviderStats:
        """The numbers now."""
        with self._lock:
            totals = dict(self._totals)
            lookups_s = sorted(self._lookups_s)
        return ProviderStats(
            name,
            state,
            **totals,
            lookup_p50_s=_quantile(lookups_s, 0.5),
            lookup_p95_s=_quantile(lookups_s, 0.95),
            queued=queued,
            queued_bytes=queued_bytes,
        )


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
