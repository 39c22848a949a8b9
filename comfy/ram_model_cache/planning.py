"""What will be asked for next, and what is worth keeping for it. Pure: no tensors, locks or clocks.

The future is what the queue names, and then what followed when the last requests came in the same order before: the longest matches count,
as in prediction by partial matching (Cleary and Witten, 1984). Where requests go back the way they came, and did so for some time, they are
foretold to go on back. What to keep for one future is packed interval by interval, the most seconds
per byte and request first, as the offline bound PFOO-L does (Berger, Beckmann and Harchol-Balter, SIGMETRICS 2018).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

PAST_KEPT = 512
LONGEST_MATCH = 8
AHEAD = 24
ENOUGH_MATCHES, MOST_MATCHES = 6, 12
RECENT, LONGEST_WAY_BACK = 64, 16
SURE_OF_TURN = 2  # requests in a row that a turn must have foretold
MOST_TRIES = 16
SEARCH_STEPS = 500
CLEARLY = 1.1  # how much better a rule must be than the one that is mostly right; less is chance


class Past:
    """The last ``PAST_KEPT`` requests, and what they foretell. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: deque[Hashable] = deque(maxlen=PAST_KEPT)
        self._turn: int | None = None
        self._onward, self._back = _Guess(), _Guess()

    def __len__(self) -> int:
        return len(self._keys)

    def note(self, key: Hashable) -> None:
        """*key* was asked for."""
        self._keys.append(key)
        recent = self._recent()
        matches, self._turn = _matches(recent), _turn(recent)
        self._onward.check(key, recent[matches[0] + 1 :] if matches else ())
        self._back.check(key, () if self._turn is None else _way_back(recent, self._turn))

    def futures(self, coming: Sequence[Hashable] = ()) -> dict[tuple[Hashable, ...], int]:
        """What may be asked for next, ``AHEAD`` requests each: *coming*, then what followed the best matches of the requests up to there.

        {future: how many of the matches foretell it}. Without a match *coming* alone; nothing where that is empty too.
        """
        if not coming and self._turn is not None and self._back.right >= SURE_OF_TURN and self._back.right > self._onward.right:
            return {tuple(islice(_way_back(self._recent(), self._turn), AHEAD)): 1}
        coming = tuple(islice(coming, AHEAD))
        keys = [*self._keys, *coming]
        rest, foretold = AHEAD - len(coming), Counter[tuple[Hashable, ...]]()
        for place in _matches(keys):
            period = len(keys) - 1 - place  # a match that reaches the end goes on with what it foretells
            foretold[(*coming, *(keys[place + 1 + step % period] for step in range(rest)))] += 1
        return foretold or ({coming: 1} if coming else {})

    def _recent(self) -> list[Hashable]:
        """The last ``RECENT`` requests."""
        return list(islice(self._keys, max(0, len(self._keys) - RECENT), None))


class _Guess:
    """How often in a row a way of foretelling named the next request, at most ``LONGEST_WAY_BACK`` times."""

    def __init__(self) -> None:
        self.right = 0
        self._next: tuple[Hashable, ...] = ()

    def check(self, key: Hashable, foretold: Iterable[Hashable]) -> None:
        """*key* was asked for, and what is *foretold* to follow it begins with the next guess."""
        self.right = min(LONGEST_WAY_BACK, self.right + 1) if self._next == (key,) else 0
        self._next = tuple(islice(foretold, 1))


def _turn(keys: Sequence[Hashable]) -> int | None:
    """Where the last of *keys* stood on the way there, if the last ones are a way there and back: the longest, then the latest."""
    end, best, found = len(keys) - 1, 0, None
    for place in range(end - 1, -1, -1):
        length = 0
        while length < LONGEST_WAY_BACK and place + length < end - length and keys[place + length] == keys[end - length]:
            length += 1
        if length > best:
            best, found = length, place
    return found


def _way_back(keys: Sequence[Hashable], place: int) -> Iterator[Hashable]:
    """What follows *keys*, whose last one stood at *place* on the way there: back to the first, there again, and so on without end.

    Whether those at the ends come twice in a row is as it was at the turn.
    """
    end = len(keys) - 1
    turn, once = (place + end) // 2, 1 - (end - place) % 2
    there, back = keys[once : turn + 1], keys[: turn + 1 - once][::-1]
    return chain(keys[:place][::-1], cycle([*there, *back]))


def _matches(keys: Sequence[Hashable]) -> list[int]:
    """Where the last of *keys* stood before with the same ones in front of it: the longest matches first, then the latest."""
    end, found = len(keys) - 1, []
    for place in range(end - 1, -1, -1):
        length = 0
        while length < LONGEST_MATCH and length <= place and keys[place - length] == keys[end - length]:
            length += 1
        if length:
            found.append((-length, -place))
    found.sort()
    enough = found[ENOUGH_MATCHES - 1][0] if len(found) >= ENOUGH_MATCHES else 0
    return [-place for length, place in found[:MOST_MATCHES] if length <= enough]


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of one key: its *size_bytes*, its reload *seconds*, and the seconds that keeping it saves *per_request* by chance."""

    size_bytes: int
    seconds: float
    per_request: float


def worth_keeping(
    future: Sequence[Hashable], here: Collection[Hashable], values: Mapping[Hashable, Value], cap_bytes: int
) -> set[Hashable]:
    """Those of the keys *here* that should be kept until they are asked for in *future*, within *cap_bytes*.

    What they save by chance counts for keys that *future* does not name. Keys that lack in *values*, or have no size, take no part.
    """
    slots = len(future) + 1
    items = _intervals(future, here, values)
    items.sort(key=lambda item: item.seconds / (item.size_bytes * (item.stop - item.start)), reverse=True)
    best_s, packed = _packed(items, cap_bytes, slots)
    throughout = _worth_most_throughout(items, here, cap_bytes)
    total_s, others = _packed(sorted(items, key=lambda item: item.key not in throughout), cap_bytes, slots)
    if total_s > CLEARLY * best_s:
        best_s, packed = total_s, others
        items.sort(key=lambda item: item.key not in throughout)
    tried = 0
    for item in items:
        if item.start == 0 and item not in packed and tried < MOST_TRIES:
            tried += 1
            total_s, others = _packed([item, *items], cap_bytes, slots)
            if total_s > best_s:
                best_s, packed = total_s, others
                items = [item, *(other for other in items if other is not item)]
    return {item.key for item in packed if item.start == 0}


@dataclass(frozen=True, slots=True, eq=False)
class _Interval:
    """Keeping *key* from request *start* until *stop*, which saves *seconds*."""

    key: Hashable
    start: int
    stop: int
    size_bytes: int
    seconds: float


def _intervals(future: Sequence[Hashable], here: Collection[Hashable], values: Mapping[Hashable, Value]) -> list[_Interval]:
    """Every stretch between two requests of one key, from now on for the keys *here*; to the end for those of them that are not named."""
    items: list[_Interval] = []
    since = dict.fromkeys(here, 0)
    for now, key in enumerate(future, 1):
        start, value = since.get(key), values.get(key)
        if start is not None and value is not None and value.size_bytes:
            items.append(_Interval(key, start, now, value.size_bytes, value.seconds))
        since[key] = now
    stop = len(future) + 1
    for key in here:
        value = values.get(key)
        if since[key] == 0 and value is not None and value.size_bytes and value.per_request:
            saved_s = value.seconds * stop / (stop + value.seconds / value.per_request)
            items.append(_Interval(key, 0, stop, value.size_bytes, saved_s))
    return items


def _worth_most_throughout(items: Sequence[_Interval], here: Collection[Hashable], cap_bytes: int) -> set[Hashable]:
    """Those of the keys *here* that save most when they are kept all the time, as suits models that come round and round.

    Packed one interval after the other, a small model may take the place of one that is worth more, time and again.
    """
    saved_s: dict[Hashable, float] = defaultdict(float)
    size_bytes: dict[Hashable, int] = {}
    for item in items:
        if item.key in here:
            saved_s[item.key] += item.seconds
            size_bytes[item.key] = item.size_bytes
    keys = sorted(saved_s, key=lambda key: saved_s[key] / size_bytes[key], reverse=True)
    return set(knapsack([(saved_s[key], size_bytes[key], key) for key in keys], cap_bytes))


def _packed(items: Iterable[_Interval], cap_bytes: int, slots: int) -> tuple[float, set[_Interval]]:
    """(seconds saved, those chosen) of taking each of *items* that fits, in their order."""
    room, chosen, total_s = [cap_bytes] * slots, set(), 0.0
    for item in items:
        if item not in chosen and min(room[item.start : item.stop]) >= item.size_bytes:
            for slot in range(item.start, item.stop):
                room[slot] -= item.size_bytes
            chosen.add(item)
            total_s += item.seconds
    return total_s, chosen


def knapsack(items: Iterable[tuple[float, int, Hashable]], room_bytes: int) -> tuple[Hashable, ...]:
    """Keys of the (worth, bytes, key) *items*, the best per byte leading, that are worth most together within *room_bytes*.

    Branch and bound; after ``SEARCH_STEPS`` branches the best set found so far.
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
