"""Candidates for the RAM model cache's policy: what will be asked for next, and what is worth keeping for it. Pure functions.

The future is what a queue names, or what followed the last time the same requests came one after another (the longest match counts,
as in LZ77 and in prediction by partial matching). What to keep is packed interval by interval, the most seconds per byte and request
first, as the offline bound PFOO-L does (Berger, Beckmann and Harchol-Balter, SIGMETRICS 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

LONGEST_MATCH = 12
AHEAD = 24
Worth = Callable[[Hashable], tuple[float, float]]


def continuation(past: Sequence[Hashable], count: int = AHEAD) -> list[Hashable]:
    """The *count* requests that followed the longest earlier match of the end of *past*, the latest where several are as long.

    Empty when the last request never came before. A match that reaches the end of *past* goes on with what it foretells.
    """
    length, start = 0, -1
    for end in range(len(past) - 2, -1, -1):
        same = 0
        while same < LONGEST_MATCH and same <= end and past[end - same] == past[len(past) - 1 - same]:
            same += 1
        if same > length:
            length, start = same, end + 1
            if same == LONGEST_MATCH:
                break
    if start < 0:
        return []
    told = list(past[start:])[:count]
    while len(told) < count:
        told.append(told[len(told) - (len(past) - start)])
    return told


def worth_keeping(
    future: Sequence[Hashable], here: Collection[Hashable], sizes: Mapping[Hashable, int], worth: Worth, cap_bytes: int
) -> set[Hashable]:
    """Those of the keys *here* that should be kept until they are asked for in *future*, within *cap_bytes*.

    *worth* gives a key's reload seconds, and the seconds that keeping it saves per request as far as chance can tell: that counts for keys
    which *future* does not name. Keys without a size in *sizes* take no part.
    """
    items = _intervals(future, here, sizes, worth)
    items.sort(key=lambda item: item.seconds / (item.size_bytes * (item.end - item.start)), reverse=True)
    best_s, packed = _packed(items, cap_bytes, len(future) + 1)
    for item in items:
        if item not in packed:
            total_s, tried = _packed([item, *items], cap_bytes, len(future) + 1)
            if total_s > best_s:
                best_s, packed = total_s, tried
                items = [item, *(other for other in items if other is not item)]
    return {item.key for item in packed if item.start == 0}


@dataclass(frozen=True, slots=True)
class _Interval:
    """Keeping *key* from request *start* until *end*, which saves *seconds*."""

    key: Hashable
    start: int
    end: int
    size_bytes: int
    seconds: float


def _intervals(future: Sequence[Hashable], here: Collection[Hashable], sizes: Mapping[Hashable, int], worth: Worth) -> list[_Interval]:
    """Every stretch between two requests of one key, from now on for the keys *here*; to the end for those of them that are not named."""
    items: list[_Interval] = []
    since: dict[Hashable, int] = dict.fromkeys(here, 0)
    for now, key in enumerate(future):
        start = since.get(key)
        if start is not None and sizes.get(key):
            items.append(_Interval(key, start, now + 1, sizes[key], worth(key)[0]))
        since[key] = now + 1
    end = len(future) + 1
    for key in here:
        seconds, per_request = worth(key)
        if since[key] == 0 and sizes.get(key) and per_request:
            items.append(_Interval(key, 0, end, sizes[key], seconds * end / (end + seconds / per_request)))
    return items


def _packed(items: Iterable[_Interval], cap_bytes: int, slots: int) -> tuple[float, set[_Interval]]:
    """(seconds saved, those chosen) of taking each of *items* that fits, in their order."""
    room, chosen, total_s = [cap_bytes] * slots, set(), 0.0
    for item in items:
        if item not in chosen and min(room[item.start : item.end]) >= item.size_bytes:
            for slot in range(item.start, item.end):
                room[slot] -= item.size_bytes
            chosen.add(item)
            total_s += item.seconds
    return total_s, chosen
