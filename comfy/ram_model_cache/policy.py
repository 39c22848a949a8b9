"""Which models to keep when not all of them fit: the decision alone, without tensors, locks or clocks.

What is kept is the set of keys worth most that fits, so a key may be refused although room could be made for it. What a key is worth
comes from two sides: of the futures that the past foretells (``planning.py``), in how many it should be kept; and what it saves by
chance, by its own gaps between requests (``known_keys.py``). The more requests the queue names, the less chance counts. A cycle larger
than the cap foretells itself, so the same set wins each time and the scan evicts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from comfy.ram_model_cache.known_keys import KnownKeys
from comfy.ram_model_cache.planning import AHEAD, Past, Value, knapsack, worth_keeping

RIVALS_LIMIT = 24
KEPT_BONUS = 1.15
LEAST_PAST = 6
CHANCE_SHARE, CHANCE_REQUESTS = 0.5, AHEAD // 4
CERTAIN_REQUESTS = 4
TOO_BIG = "too big for the cap"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to admit a key, and which kept keys to evict first so that it fits, least valuable first."""

    admit: bool
    victims: tuple[Hashable, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """Keys are kept by *now*, which would have saved *now_s* seconds of late, and no longer by *before*, which saved *before_s*."""

    now: str
    before: str
    now_s: float
    before_s: float


@dataclass(frozen=True, slots=True)
class Question:
    """Whether *key* of *size_bytes* deserves a place among *kept_bytes* under *cap_bytes*; see :meth:`RamCachePolicy.decide`."""

    key: Hashable
    size_bytes: int
    cap_bytes: int
    kept_bytes: Mapping[Hashable, int]
    first: Collection[Hashable] = ()
    held: Collection[Hashable] = ()
    coming: Sequence[Hashable] = ()

    def fixed_bytes(self) -> int:
        """Bytes of what is held."""
        return sum(size for other, size in self.kept_bytes.items() if other in self.held)

    def rivals(self) -> dict[Hashable, int]:
        """{key: bytes} of those that may have to give way, and of the key itself."""
        return {other: size for other, size in self.kept_bytes.items() if other not in self.held} | {self.key: self.size_bytes}


Choose = Callable[[Question], Collection[Hashable]]


class RamCachePolicy:
    """Learns how often and in which order keys are asked for and what they cost, and chooses what to keep.

    The owner calls :meth:`request` for every lookup, :meth:`learn` after a load, :meth:`decide` before one, and
    :meth:`eviction_order` when memory must be freed whatever it costs. Not thread-safe: its owner's lock guards it.
    """

    def __init__(self) -> None:
        self.known, self._past = KnownKeys(), Past()

    def request(self, key: Hashable) -> None:
        """Note that *key* was asked for, found or not."""
        self.known.request(key)
        self._past.note(key)

    def learn(self, key: Hashable, size_bytes: int, seconds: float) -> None:
        """Note what loading *key* took."""
        self.known.learn(key, size_bytes, seconds)

    def news(self) -> Followed | None:
        """Which rule it follows now, if that has changed since the last call."""
        return None

    def resize(self, cap_bytes: int) -> None:
        """There is room for *cap_bytes* from now on."""

    def decide(
        self,
        key: Hashable,
        size_bytes: int,
        cap_bytes: int,
        kept_bytes: Mapping[Hashable, int],
        first: Collection[Hashable] = (),
        held: Collection[Hashable] = (),
        coming: Sequence[Hashable] = (),
    ) -> Decision:
        """Whether *key* deserves a place among *kept_bytes* (bytes by key) under *cap_bytes*, and who makes room.

        *coming* are the keys that will be asked for after *key*, in order, as far as that is known. Where it is not, keys in *first* (named
        by pending prompts) give way only to each other. Keys in *held* never do.
        """
        return self._decided(Question(key, size_bytes, cap_bytes, kept_bytes, first, held, coming), self.planned)

    def _decided(self, asked: Question, choose: Choose) -> Decision:
        """The answer where *choose* says which keys to keep, asked only when there is no room for all."""
        fixed_bytes = asked.fixed_bytes()
        if asked.size_bytes > asked.cap_bytes - fixed_bytes:
            return Decision(False, (), TOO_BIG)
        missing_bytes = sum(asked.kept_bytes.values()) + asked.size_bytes - asked.cap_bytes
        if missing_bytes <= 0:
            return Decision(True)
        wanted = choose(asked)
        if asked.key not in wanted and asked.key not in asked.held:
            return Decision(False, (), "worth less than what is kept")
        first = () if asked.coming else asked.first
        victims = []
        for other in self.eviction_order(asked.kept_bytes, {*wanted, *first}, asked.held):
            if missing_bytes <= 0 or other in asked.held:
                break
            victims.append(other)
            missing_bytes -= asked.kept_bytes[other]
        return Decision(True, tuple(victims))

    def eviction_order(
        self, kept_bytes: Mapping[Hashable, int], first: Collection[Hashable] = (), held: Collection[Hashable] = ()
    ) -> list[Hashable]:
        """The kept keys, the one to evict first leading: least worth per byte, then those in *first*, those in *held* last."""
        worth = self.known.worth
        return sorted(kept_bytes, key=lambda key: (key in held, key in first, worth(key, kept_bytes[key]) / max(1, kept_bytes[key])))

    def planned(self, asked: Question) -> set[Hashable]:
        """The keys to keep for what is coming and foretold."""
        futures = self._past.futures(asked.coming)
        if not futures or (len(self._past) < LEAST_PAST and not asked.coming):
            return self.by_rates(asked)
        rivals, room_bytes = asked.rivals(), asked.cap_bytes - asked.fixed_bytes()
        values = {other: self._value(other, size) for other, size in (self.known.loaded() | rivals).items()}
        votes = dict.fromkeys(rivals, 0)
        for future, count in futures.items():
            for other in worth_keeping(future, rivals, values, room_bytes):
                votes[other] += count
        total = sum(futures.values())
        chance = CHANCE_SHARE * max(0.0, 1 - len(asked.coming) / CERTAIN_REQUESTS)
        worth = {
            other: (1 - chance) * votes[other] / total * values[other].seconds + chance * CHANCE_REQUESTS * values[other].per_request
            for other in rivals
        }
        return self._packed(asked, rivals, worth)

    def by_rates(self, asked: Question) -> set[Hashable]:
        """The keys worth most by chance alone, out of the kept ones, the key itself, and those known from before."""
        rivals = {other: size for other, size in self.known.loaded(returning=True).items() if other not in asked.held} | asked.rivals()
        return self._packed(asked, rivals, {other: self.known.worth(other, size) for other, size in rivals.items()})

    def _packed(self, asked: Question, rivals: Mapping[Hashable, int], worth: Mapping[Hashable, float]) -> set[Hashable]:
        """Those of *rivals* that are *worth* most together and fit beside what is held."""
        first = () if asked.coming else asked.first
        ceiling = 1e6 * sum(self.known.seconds_for(other, size) for other, size in rivals.items()) if first else 0.0
        items = [
            (worth[other] * (KEPT_BONUS if other in asked.kept_bytes else 1.0) + (ceiling if other in first else 0.0), size, other)
            for other, size in rivals.items()
        ]
        items.sort(key=lambda item: item[0] / max(1, item[1]), reverse=True)
        return set(knapsack(items[:RIVALS_LIMIT], asked.cap_bytes - asked.fixed_bytes()))

    def _value(self, key: Hashable, size_bytes: int) -> Value:
        return Value(size_bytes, self.known.seconds_for(key, size_bytes), self.known.worth(key, size_bytes))
