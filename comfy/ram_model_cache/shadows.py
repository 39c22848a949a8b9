"""A policy that follows whichever of a few saved most of late.

Caches without models, one for each policy, run over the same requests; their seconds saved are what the policies would have saved. The best
one of late is followed, as the experts of LeCaR (Vietri, HotStorage 2018) and CACHEUS (Rodriguez, FAST 2021) are, but by a clear lead only:
where requests come by chance, so does the lead. The plan of ``policy.py`` is followed first, left last and returned to first. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from comfy.ram_model_cache.policy import Decision, Followed, Question, RamCachePolicy

MEMORY = 0.98  # of the seconds saved, per request
LEAD, LEAD_LOADS = 1.15, 6  # how far ahead another shadow must be before it is followed, the latter in loads of the key asked for
PLAN, RATES, OLDEST, NEWEST = "what it foretells", "how often each is asked for", "what was used last", "what was used longest ago"
Kept = OrderedDict[Hashable, int]
Place = Callable[[Hashable, int, Kept], None]


@dataclass(slots=True)
class Shadow:
    """A cache without models, ordered by last use, that *place* fills; *name* says what it keeps, ``saved_s`` what that saved of late."""

    name: str
    place: Place
    kept: Kept = field(default_factory=OrderedDict)
    saved_s: float = 0.0

    def ask(self, key: Hashable, size_bytes: int, seconds: float) -> None:
        """What the request for *key* does to it."""
        self.saved_s *= MEMORY
        if key in self.kept:
            self.saved_s += seconds
            self.kept.move_to_end(key)
        else:
            self.place(key, size_bytes, self.kept)


class ChoosingPolicy(RamCachePolicy):
    """The plan, today's rates, LRU and MRU as shadows of a cache of *cap_bytes*, and the decision of the one followed."""

    def __init__(self, cap_bytes: int) -> None:
        super().__init__()
        self._cap_bytes = cap_bytes
        self._unsized: set[Hashable] = set()
        self._answered: tuple[object, set[Hashable]] = (None, set())
        self._home = Shadow(PLAN, self._by(self.planned))
        self._shadows = (
            self._home,
            Shadow(RATES, self._by(self.by_rates)),
            Shadow(OLDEST, self._by_age(False)),
            Shadow(NEWEST, self._by_age(True)),
        )
        self.followed = self._home
        self._news: Followed | None = None

    def resize(self, cap_bytes: int) -> None:
        self._cap_bytes = cap_bytes
        for shadow in self._shadows:
            while sum(shadow.kept.values()) > cap_bytes:
                shadow.kept.popitem(last=False)

    def news(self) -> Followed | None:
        told, self._news = self._news, None
        return told

    def request(self, key: Hashable) -> None:
        super().request(key)
        size_bytes = self.known.bytes_of(key)
        if size_bytes:
            self._ask(key, size_bytes)
        else:
            self._unsized.add(key)

    def learn(self, key: Hashable, size_bytes: int, seconds: float) -> None:
        self._ask_unsized(key, size_bytes)
        super().learn(key, size_bytes, seconds)

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
        self._ask_unsized(key, size_bytes)
        asked = Question(key, size_bytes, cap_bytes, kept_bytes, first, held, coming)
        return self._decided(asked, self.planned if coming or self.followed is self._home else self._as_followed)

    def planned(self, asked: Question) -> set[Hashable]:
        """The keys to keep; the plan's shadow and the cache itself mostly ask the same, and the answer is made once."""
        if asked.first or asked.held or asked.coming:
            return super().planned(asked)
        question = (self.known.now, asked.key, asked.size_bytes, asked.cap_bytes, dict(asked.kept_bytes))
        if self._answered[0] != question:
            self._answered = (question, super().planned(asked))
        return self._answered[1]

    def _as_followed(self, asked: Question) -> set[Hashable]:
        wanted = set(self.followed.kept)
        return wanted | {asked.key} if asked.key in asked.first else wanted

    def _ask_unsized(self, key: Hashable, size_bytes: int) -> None:
        if key in self._unsized:
            self._unsized.discard(key)
            self._ask(key, size_bytes)

    def _ask(self, key: Hashable, size_bytes: int) -> None:
        """Let every shadow serve the request, and see who is followed."""
        seconds = self.known.seconds_for(key, size_bytes)
        for shadow in self._shadows:
            shadow.ask(key, size_bytes, seconds)
        best, before = max(self._shadows, key=lambda shadow: shadow.saved_s), self.followed
        if before is not self._home and self._home.saved_s >= before.saved_s:
            self.followed = self._home
        elif best.saved_s > LEAD * before.saved_s + LEAD_LOADS * seconds:
            self.followed = best
        if self.followed is not before:
            self._news = Followed(self.followed.name, before.name, self.followed.saved_s, before.saved_s)

    def _by(self, choose: Callable[[Question], Collection[Hashable]]) -> Place:
        def place(key: Hashable, size_bytes: int, kept: Kept) -> None:
            decision = self._decided(Question(key, size_bytes, self._cap_bytes, kept), choose)
            for victim in decision.victims:
                del kept[victim]
            if decision.admit:
                kept[key] = size_bytes

        return place

    def _by_age(self, newest: bool) -> Place:
        def place(key: Hashable, size_bytes: int, kept: Kept) -> None:
            while size_bytes <= self._cap_bytes < sum(kept.values()) + size_bytes:
                kept.popitem(last=newest)
            if size_bytes <= self._cap_bytes:
                kept[key] = size_bytes

        return place
