"""What is known of the keys that were asked for: when, how large they are, what loading them took, and what keeping them is worth by that.

Each key is worth the seconds that keeping it is expected to save per request of any key: reload seconds / expected gap until it is
asked for again. Cost and size enter as in GreedyDual-Size (Cao and Irani, USITS 1997) and GDSF (Cherkasova, HPL-98-69R1); past requests
are remembered also for keys that are gone, as in LRU-K (O'Neil, SIGMOD 1993); the expected gap, given the time since the last request,
follows LHD's hit density (Beckmann, NSDI 2018).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

GAPS_KEPT = 12
KNOWN_LIMIT = 512
AGE_WEIGHT = 0.5
ENDLESS_GAPS = 1.0
OVERDUE_RATE = 0.5
NEW_OVERDUE = 1.5
NEW_MEMORY = 0.9
GAP_MEMORY = 0.9
DEFAULT_SECONDS_PER_BYTE = 1e-9
TYPICAL_GAP_AT_START = 4.0


@dataclass(slots=True)
class _Record:
    """What is known of one key. *last* is on the clock that counts requests; *gaps* are between its own requests."""

    last: int
    bytes: int = 0
    seconds: float = 0.0
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=GAPS_KEPT))


class KnownKeys:
    """The keys that were asked for, at most ``KNOWN_LIMIT``, those asked for longest ago leading. Not thread-safe."""

    def __init__(self) -> None:
        self.now = 0
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()
        self._first_uses = 1.0
        self._second_uses = 1.0
        self._typical_gap = TYPICAL_GAP_AT_START
        self._learned_bytes = 0
        self._learned_seconds = 0.0

    def __len__(self) -> int:
        return len(self._records)

    def request(self, key: Hashable) -> None:
        """Note that *key* was asked for."""
        self.now += 1
        record = self._records.pop(key, None)
        if record is None:
            record = _Record(self.now)
            self._first_uses = NEW_MEMORY * self._first_uses + 1
            self._second_uses *= NEW_MEMORY
        else:
            if not record.gaps:
                self._second_uses = min(self._second_uses + 1, self._first_uses)
            record.gaps.append(self.now - record.last)
            self._typical_gap += (1 - GAP_MEMORY) * (self.now - record.last - self._typical_gap)
            record.last = self.now
        self._records[key] = record
        while len(self._records) > KNOWN_LIMIT:
            self._records.popitem(last=False)

    def learn(self, key: Hashable, size_bytes: int, seconds: float) -> None:
        """Note what loading *key* took."""
        record = self._records.get(key)
        if record is not None:
            record.bytes, record.seconds = size_bytes, seconds
        self._learned_bytes += size_bytes
        self._learned_seconds += seconds

    def bytes_of(self, key: Hashable) -> int:
        """How large *key* was when it was loaded; 0 if it was not."""
        record = self._records.get(key)
        return 0 if record is None else record.bytes

    def loaded(self, returning: bool = False) -> dict[Hashable, int]:
        """{key: bytes} of those that were loaded, and, with *returning*, asked for more than once."""
        return {key: record.bytes for key, record in self._records.items() if record.bytes and (record.gaps or not returning)}

    def behind(self, paths: Iterable[str]) -> list[Hashable]:
        """The keys whose first file *paths* name, in that order; of several of one part, the one that was asked for last."""
        latest: dict[str, dict[Hashable, Hashable]] = {}
        for key in self._records:
            files = getattr(key, "paths", ())
            if files:
                latest.setdefault(files[0], {})[getattr(key, "component", None)] = key
        return [key for path in paths for key in latest.get(path, {}).values()]

    def seconds_for(self, key: Hashable, size_bytes: int) -> float:
        """Measured reload seconds of *key*; for a key never loaded, what its size takes at the mean speed so far."""
        record = self._records.get(key)
        if record is not None and record.seconds:
            return record.seconds
        speed = self._learned_seconds / self._learned_bytes if self._learned_bytes else DEFAULT_SECONDS_PER_BYTE
        return size_bytes * speed

    def worth(self, key: Hashable, size_bytes: int) -> float:
        """Seconds that keeping *key* is expected to save per request of any key."""
        return self._rate(self._records.get(key)) * self.seconds_for(key, size_bytes)

    def _rate(self, record: _Record | None) -> float:
        """Expected requests of a key per request of any key, kept for the time that makes this largest (hit density).

        Counts the remembered gaps longer than the present age; endless ones stand for never coming back. Half of the age is taken
        off each: with all of it the key that is due next beats one worth more per round, with none of it chance counts for nothing.
        """
        age = 0 if record is None else self.now - record.last
        if record is None or not record.gaps:
            return self._second_uses / self._first_uses / max(self._typical_gap, NEW_OVERDUE * age)
        longer = sorted(gap - AGE_WEIGHT * age for gap in record.gaps if gap > age)
        if not longer:
            return OVERDUE_RATE / max(age, sum(record.gaps) / len(record.gaps))
        best, passed = 0.0, 0.0
        total = len(longer) + ENDLESS_GAPS
        for count, gap in enumerate(longer, 1):
            passed += gap
            best = max(best, count / (passed + (total - count) * gap))
        return best
