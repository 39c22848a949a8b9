"""Which models to keep when not all of them fit: the decision alone, without tensors, locks or clocks.

Each key is worth the seconds that keeping it is expected to save per request of any key: reload seconds / expected gap until it is
asked for again. What is kept is the set of keys worth most that fits, found as a knapsack over everything known, so a key may be
refused although room could be made for it. Cost and size enter as in GreedyDual-Size (Cao and Irani, USITS 1997) and GDSF
(Cherkasova, HPL-98-69R1); past requests are remembered also for keys that are gone, as in LRU-K (O'Neil, SIGMOD 1993); the expected
gap, given the time since the last request, follows LHD's hit density (Beckmann, NSDI 2018). A cycle larger than the cap gives all its
keys one gap, so the same set wins each time and the scan evicts nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

GAPS_KEPT = 12
KNOWN_LIMIT = 512
RIVALS_LIMIT = 24
SEARCH_STEPS = 500
KEPT_BONUS = 1.15
AGE_WEIGHT = 0.5
ENDLESS_GAPS = 1.0
OVERDUE_RATE = 0.5
NEW_OVERDUE = 1.5
NEW_MEMORY = 0.9
GAP_MEMORY = 0.9
DEFAULT_SECONDS_PER_BYTE = 1e-9
TYPICAL_GAP_AT_START = 4.0
TOO_BIG = "too big for the cap"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to admit a key, and which kept keys to evict first so that it fits, least valuable first."""

    admit: bool
    victims: tuple[Hashable, ...] = ()
    reason: str = ""


@dataclass(slots=True)
class _Record:
    """What is known of one key. *last* is on the clock that counts requests; *gaps* are between its own requests."""

    last: int
    bytes: int = 0
    seconds: float = 0.0
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=GAPS_KEPT))


class RamCachePolicy:
    """Learns how often keys are asked for and what they cost, and chooses what to keep.

    The owner calls :meth:`request` for every lookup, :meth:`learn` after a load, :meth:`decide` before one, and
    :meth:`eviction_order` when memory must be freed whatever it costs. Not thread-safe: its owner's lock guards it.
    """

    def __init__(self) -> None:
        self._now = 0
        self._known: OrderedDict[Hashable, _Record] = OrderedDict()
        self._first_uses = 1.0
        self._second_uses = 1.0
        self._typical_gap = TYPICAL_GAP_AT_START
        self._learned_bytes = 0
        self._learned_seconds = 0.0

    def request(self, key: Hashable) -> None:
        """Note that *key* was asked for, found or not."""
        self._now += 1
        record = self._known.pop(key, None)
        if record is None:
            record = _Record(self._now)
            self._first_uses = NEW_MEMORY * self._first_uses + 1
            self._second_uses *= NEW_MEMORY
        else:
            if not record.gaps:
                self._second_uses = min(self._second_uses + 1, self._first_uses)
            record.gaps.append(self._now - record.last)
            self._typical_gap += (1 - GAP_MEMORY) * (self._now - record.last - self._typical_gap)
            record.last = self._now
        self._known[key] = record
        while len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def learn(self, key: Hashable, size_bytes: int, seconds: float) -> None:
        """Note what loading *key* took."""
        record = self._known.get(key)
        if record is not None:
            record.bytes, record.seconds = size_bytes, seconds
        self._learned_bytes += size_bytes
        self._learned_seconds += seconds

    def seconds_for(self, key: Hashable, size_bytes: int) -> float:
        """Measured reload seconds of *key*; for a key never loaded, what its size takes at the mean speed so far."""
        record = self._known.get(key)
        if record is not None and record.seconds:
            return record.seconds
        speed = self._learned_seconds / self._learned_bytes if self._learned_bytes else DEFAULT_SECONDS_PER_BYTE
        return size_bytes * speed

    def worth(self, key: Hashable, size_bytes: int) -> float:
        """Seconds that keeping *key* is expected to save per request of any key."""
        return self._rate(self._known.get(key)) * self.seconds_for(key, size_bytes)

    def decide(
        self,
        key: Hashable,
        size_bytes: int,
        cap_bytes: int,
        kept_bytes: Mapping[Hashable, int],
        first: Collection[Hashable] = (),
        held: Collection[Hashable] = (),
    ) -> Decision:
        """Whether *key* deserves a place among *kept_bytes* (bytes by key) under *cap_bytes*, and who makes room.

        Keys in *first* (named by pending prompts) give way only to each other; keys in *held* never do.
        """
        fixed_bytes = sum(size for other, size in kept_bytes.items() if other in held)
        if size_bytes > cap_bytes - fixed_bytes:
            return Decision(False, (), TOO_BIG)
        missing_bytes = sum(kept_bytes.values()) + size_bytes - cap_bytes
        if missing_bytes <= 0:
            return Decision(True)
        wanted = self._best_set(key, size_bytes, cap_bytes - fixed_bytes, kept_bytes, first, held)
        if key not in wanted and key not in held:
            return Decision(False, (), "worth less than what is kept")
        victims = []
        for other in self.eviction_order(kept_bytes, first, held):
            if missing_bytes <= 0:
                break
            if other not in wanted:
                victims.append(other)
                missing_bytes -= kept_bytes[other]
        return Decision(True, tuple(victims))

    def eviction_order(
        self, kept_bytes: Mapping[Hashable, int], first: Collection[Hashable] = (), held: Collection[Hashable] = ()
    ) -> list[Hashable]:
        """The kept keys, the one to evict first leading: least worth per byte, then those in *first*, those in *held* last."""
        return sorted(kept_bytes, key=lambda key: (key in held, key in first, self.worth(key, kept_bytes[key]) / max(1, kept_bytes[key])))

    def _rate(self, record: _Record | None) -> float:
        """Expected requests of a key per request of any key, kept for the time that makes this largest (hit density).

        Counts the remembered gaps longer than the present age; endless ones stand for never coming back. Half of the age is taken
        off each: with all of it the key that is due next beats one worth more per round, with none of it chance counts for nothing.
        """
        age = 0 if record is None else self._now - record.last
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

    def _best_set(
        self,
        key: Hashable,
        size_bytes: int,
        room_bytes: int,
        kept_bytes: Mapping[Hashable, int],
        first: Collection[Hashable],
        held: Collection[Hashable],
    ) -> set[Hashable]:
        """The keys worth most that fit into *room_bytes*, out of the kept ones, *key*, and those known from before."""
        rivals = {other: record.bytes for other, record in self._known.items() if record.gaps and record.bytes}
        rivals.update(kept_bytes)
        rivals[key] = size_bytes
        ceiling = 1e6 * sum(self.seconds_for(other, size) for other, size in rivals.items())
        items = []
        for other, size in rivals.items():
            if other in held and other != key:
                continue
            worth = self.worth(other, size) * (KEPT_BONUS if other in kept_bytes else 1.0)
            items.append((worth + (ceiling if other in first else 0.0), size, other))
        items.sort(key=lambda item: item[0] / max(1, item[1]), reverse=True)
        return set(_knapsack(items[:RIVALS_LIMIT], room_bytes))


def _knapsack(items: Iterable[tuple[float, int, Hashable]], room_bytes: int) -> tuple[Hashable, ...]:
    """Keys of the (worth, bytes, key) *items* worth most together within *room_bytes*.

    Branch and bound, the best per byte first; after ``SEARCH_STEPS`` branches the best set found so far.
    """
    ordered = list(items)
    best: tuple[float, tuple[Hashable, ...]] = (-1.0, ())
    waiting: list[tuple[int, int, float, tuple[Hashable, ...]]] = [(0, room_bytes, 0.0, ())]
    steps = 0
    while waiting and steps < SEARCH_STEPS:
        steps += 1
        index, room, worth, chosen = waiting.pop()
        if worth > best[0]:
            best = (worth, chosen)
        if index == len(ordered) or worth + _fractional(ordered, index, room) <= best[0]:
            continue
        value, size, key = ordered[index]
        waiting.append((index + 1, room, worth, chosen))
        if size <= room:
            waiting.append((index + 1, room - size, worth + value, (*chosen, key)))
    return best[1]


def _fractional(ordered: list[tuple[float, int, Hashable]], index: int, room_bytes: int) -> float:
    """The most that items from *index* on could add if they could be cut: an upper bound."""
    total = 0.0
    for value, size, _ in ordered[index:]:
        if size > room_bytes:
            return total + value * room_bytes / size
        room_bytes -= size
        total += value
    return total
