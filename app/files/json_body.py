"""Reads JSON request bodies of any declared type, as scripts that talk to this server expect."""

import json
from typing import Any

from aiohttp import web


def _refuse_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not JSON")


def parse_strict(text: str | bytes) -> Any:
    """Decode JSON; NaN and Infinity, which browsers cannot read back, are refused. Raises ``ValueError``."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


async def read_json(request: web.Request) -> Any:
    """The request's body as a JSON value. Raises ``HTTPBadRequest`` with the reason when it is not one."""
    body = await request.read()
    try:
        return parse_strict(body)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"The request body is not valid JSON: {error}") from None


async def read_json_object(request: web.Request) -> dict[str, Any]:
    """As ``read_json``, for bodies that must be an object."""
    value = await read_json(request)
    if not isinstance(value, dict):
        raise web.HTTPBadRequest(text=f"The request body must be a JSON object, not {type(value).__name__}.")
    return value
