"""Reads JSON request bodies of any declared type, as scripts that talk to this server expect."""

import json
import math
import threading
from typing import Any

from aiohttp import web

from app.files.body_budget import bodies_of
from app.files.off_loop import off_loop

# Python's parser lets no other thread run meanwhile; this many values take it some 0.2 s.
MAX_VALUES = 500_000
_ON_LOOP_BYTES = 64 * 1024
_ESCAPES_PER_VALUE = 16
# Looked through piece by piece, so that other threads run in between.
_PIECE_BYTES = 256 * 1024
_BLANKS = b" \t\r\n"
_BLANKS_EACH = (b" ", b"\t", b"\r", b"\n")


_turn = threading.Lock()


class TooManyValues(ValueError):
    """The JSON has more values than are read."""


def _refuse_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise ValueError(f"the number {literal[:40]} is too large; nobody could read it back")
    return number


def parse_strict(text: str | bytes) -> Any:
    """Decode JSON; NaN, Infinity and numbers that would become Infinity, which browsers cannot read back, are refused.

    Raises ``ValueError``.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def parse_as_python_writes_it(text: str | bytes) -> Any:
    """Decode JSON that may hold NaN and Infinity, as prompts in pictures of older servers do. Raises ``ValueError``."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def parse_bounded(body: bytes, *, strict: bool = True) -> Any:
    """The same for a body from outside. Raises :class:`TooManyValues` before parsing one with more than :data:`MAX_VALUES`."""
    marks = 0
    for start in range(0, len(body), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        marks += sum(body.count(mark, start, end) for mark in (b",", b":", b"[", b"{"))
        marks += body.count(b"\\", start, end) // _ESCAPES_PER_VALUE
        if marks > MAX_VALUES:
            raise TooManyValues(f"it has more than {MAX_VALUES:,} values")
    parse = parse_strict if strict else parse_as_python_writes_it
    return parse(body.strip(_BLANKS) if body[:1] in _BLANKS_EACH or body[-1:] in _BLANKS_EACH else body)


async def read_json(request: web.Request, *, strict: bool = True) -> Any:
    """The request's body as a JSON value; a large one is parsed off the loop. Unless *strict*, NaN and Infinity may be in it.

    Raises ``HTTPBadRequest`` with the reason when it is not one, ``HTTPRequestEntityTooLarge`` for too many values, and as
    :meth:`BodyShare.read` does.
    """
    with bodies_of(request).share() as share:
        return await _parsed(await share.read(request), strict)


async def _parsed(body: bytes, strict: bool) -> Any:
    try:
        return parse_bounded(body, strict=strict) if len(body) <= _ON_LOOP_BYTES else await off_loop(_parse_in_turn, body, strict)
    except TooManyValues as error:
        raise web.HTTPRequestEntityTooLarge(MAX_VALUES, text=f"The request body is too large: {error}.") from None
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"The request body is not valid JSON: {error}") from None


def _parse_in_turn(body: bytes, strict: bool) -> Any:
    """One at a time: several that each let no other thread run would add up to a long wait for the loop."""
    with _turn:
        return parse_bounded(body, strict=strict)


async def read_json_object(request: web.Request, *, strict: bool = True) -> dict[str, Any]:
    """As ``read_json``, for bodies that must be an object."""
    value = await read_json(request, strict=strict)
    if not isinstance(value, dict):
        raise web.HTTPBadRequest(text=f"The request body must be a JSON object, not {type(value).__name__}.")
    return value
