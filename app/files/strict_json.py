"""JSON that every browser can read: no NaN, no Infinity, plain ASCII."""

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Set
from typing import Any

from aiohttp import web

_LARGEST_FLOAT = 1.7976931348623157e308


def describe_unknown(value: Any) -> Any:
    """Stands in for an object that JSON cannot hold: a set as a list, a number of an array library as itself, else the type's
    name."""
    if isinstance(value, Set):
        return sorted(value, key=str)
    if isinstance(value, Mapping):
        return dict(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def dumps(value: Any, *, clamp_infinity: bool = False, unknown: Callable[[Any], Any] | None = describe_unknown) -> str:
    """*value* as compact JSON; NaN becomes null, Infinity null or (*clamp_infinity*) the largest float.

    *unknown* gives what to write for other objects; None raises ``TypeError`` for them. Raises ``ValueError`` for containers that
    contain themselves.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=unknown)
    except (TypeError, ValueError):
        plain = _plain(value, clamp_infinity, ())
        return json.dumps(plain, allow_nan=False, separators=(",", ":"), default=unknown)


def dumps_by_members(value: Any) -> str:
    """The same with each member of a mapping by itself, so that other threads run in between while a large one is encoded."""
    if not isinstance(value, Mapping):
        return dumps(value)
    return "{" + ",".join(dumps({key: member})[1:-1] for key, member in list(value.items())) + "}"


def _plain(value: Any, clamp: bool, above: tuple[int, ...]) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return math.copysign(_LARGEST_FLOAT, value) if clamp and not math.isnan(value) else None
    if not isinstance(value, Mapping | list | tuple | Set):
        return value
    if id(value) in above:
        raise ValueError("a container contains itself")
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, clamp, above) for key, item in value.items()}
    items = sorted(value, key=str) if isinstance(value, Set) else value
    return [_plain(item, clamp, above) for item in items]


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | bool) or key is None else str(key)


def json_answer(value: Any, status: int = 200) -> web.Response:
    """*value* as an answer; for values that are quickly encoded."""
    return web.json_response(text=dumps(value), status=status)


async def large_json_answer(value: Any) -> web.Response:
    """The same, encoded on a worker thread so that the event loop goes on meanwhile."""
    return web.json_response(text=await asyncio.to_thread(dumps, value))
