"""Treats values as the page's JavaScript holds and writes them."""

import math
from decimal import Decimal
from typing import Any, Final, final

EXACT_UP_TO: Final = 2**53
"""Above this a number of the page is a double: it has already been rounded when the page reads the file."""


@final
class Unset:
    """A value that was never given; the page leaves such an entry out of what it sends."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def is_missing(value: Any) -> bool:
    """Whether the page's ``value == null`` holds."""
    return value is None or value is UNSET


def is_same(left: Any, right: Any) -> bool:
    """Equality without conversion: True is not 1, but 1 is 1.0."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def is_truthy(value: Any) -> bool:
    """Whether JavaScript takes *value* for true; empty lists and objects are."""
    if isinstance(value, float) and math.isnan(value):
        return False
    return isinstance(value, list | dict) or (value is not UNSET and bool(value))


def as_text(value: Any) -> str:
    """*value* as JavaScript's ``String(value)`` for the kinds that a text box can meet."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value is UNSET:
        return "undefined"
    if isinstance(value, list):
        return ",".join("" if is_missing(one) else as_text(one) for one in value)
    if isinstance(value, dict):
        return "[object Object]"
    return str(as_sent(value))


def as_sent(value: Any) -> Any:
    """*value* as the page's JSON has it: whole floats are integers, integers beyond 2^53 are rounded, NaN and infinity are null."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= EXACT_UP_TO else _rounded(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(Decimal(repr(value))) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, list):
        return [None if one is UNSET else as_sent(one) for one in value]
    return {key: as_sent(one) for key, one in value.items() if one is not UNSET}


def as_input(value: Any) -> Any:
    """*value* as it stands among a prompt's inputs, where an unwrapped list would be read as a link."""
    sent = as_sent(value)
    return {"__value__": sent} if isinstance(sent, list) else sent


def _rounded(value: int) -> int | float | None:
    try:
        double = float(value)
    except OverflowError:
        return None
    return int(Decimal(repr(double))) if abs(double) < 1e21 else double
