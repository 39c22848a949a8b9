"""What one provider of the pack did, for ``/keepwarm/caches`` and ``/keepwarm/metrics`` in any server."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SAMPLES = 512


@dataclass(slots=True)
class Lookup:
    """One lookup under way; ``found`` is set by whoever makes it."""

    found: bool = False


class Measures:
    """Counters and lookup times. Any thread; never blocks."""

    NAMES = ("hits", "misses", "errors", "stores", "rejected", "bytes_fetched", "bytes_stored")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(self.NAMES, 0)
        self._seconds: deque[float] = deque(maxlen=SAMPLES)

    def add(self, **amounts: int) -> None:
        """Add to the totals."""
        with self._lock:
            for name, amount in amounts.items():
                self._totals[name] += amount

    @contextlib.contextmanager
    def lookup(self) -> Iterator[Lookup]:
        """Measure a lookup; what it raises counts as an error."""
        one, began_s = Lookup(), time.monotonic()
        try:
            yield one
        except Exception:
            self.add(errors=1)
            raise
        with self._lock:
            self._seconds.append(time.monotonic() - began_s)
            self._totals["hits" if one.found else "misses"] += 1

    @contextlib.contextmanager
    def store(self) -> Iterator[None]:
        """Measure a store."""
        try:
            yield
        except Exception:
            self.add(errors=1)
            raise
        self.add(stores=1)

    def snapshot(self) -> dict[str, Any]:
        """Totals, and the times within which 50 and 95 of 100 lookups were answered, in seconds."""
        with self._lock:
            totals: dict[str, Any] = dict(self._totals)
            seconds = sorted(self._seconds)
        for name, share in (("lookup_p50_s", 0.5), ("lookup_p95_s", 0.95)):
            totals[name] = seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else None
        return totals
