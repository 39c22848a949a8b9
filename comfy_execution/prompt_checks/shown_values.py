"""Values that clients sent, as answers and log lines repeat them: whole while they are small, else cut, at a cost with a bound."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

# Larger numbers, in bits, cannot be written by Python's own rules.
MAX_BITS = 4096
MOST_SHOWN = 200
MOST_ECHOED = 10_000
MOST_OF_A_REASON = 5000
_PART_COST = 3
_PARTS_SHOWN = 50

_cut = reprlib.Repr()
_cut.maxlevel = 3
_cut.maxlist = _cut.maxtuple = _cut.maxdict = _cut.maxset = _PARTS_SHOWN
_cut.maxstring = _cut.maxother = MOST_SHOWN


def weight(value: Any, most: int) -> int:
    """About how many characters *value* takes as JSON. Counting ends a little beyond *most*; containers may be nested to any depth."""
    total = 0
    waiting = [value]
    while waiting and total <= most:
        part = waiting.pop()
        total += _PART_COST
        if isinstance(part, str):
            total += len(part)
        elif isinstance(part, int):
            total += part.bit_length() // 3
        elif isinstance(part, Mapping):
            total += _add_parts(waiting, part.keys(), most - total)
            total += _add_parts(waiting, part.values(), most - total)
        elif isinstance(part, list | tuple):
            total += _add_parts(waiting, part, most - total)
    return total


def _add_parts(waiting: list[Any], parts: Any, left: int) -> int:
    """Put the parts of a container where they are weighed later, or say that there are too many."""
    if len(parts) * _PART_COST > left:
        return left + 1
    waiting += parts
    return 0


def brief(text: str, most: int = MOST_SHOWN) -> str:
    """*text*, its end replaced by a mark when it has more than *most* characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def shown(value: Any) -> str:
    """*value* for a message, cut when it is long."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        return brief(repr(value[: MOST_SHOWN + 1]))
    return brief(repr(value) if weight(value, MOST_ECHOED) <= MOST_ECHOED else _cut.repr(value))


def echo(value: Any) -> Any:
    """*value* as it may be sent back: what is long, and numbers that JSON cannot carry, alone or in a link, become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, int):
        return shown(value) if value.bit_length() > MAX_BITS else value
    if weight(value, MOST_ECHOED) > MOST_ECHOED:
        return shown(value)
    if isinstance(value, list):
        return [echo(part) for part in value] if not any(isinstance(part, list) for part in value) else value
    return value
