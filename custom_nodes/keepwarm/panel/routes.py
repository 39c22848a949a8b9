"""The panel's routes."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .actions import NotPossible
from .panel import Panel
from .rows import Action
from .watch import TooManyWatchers

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AT_ONCE = 2
_TEXT_LENGTH = 4096


def add_routes(routes: web.RouteTableDef, panel: Panel, writes: Callable[[Handler], Handler]) -> None:
    """Add them to the server's table; *writes* wraps those that change something."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def models(request: web.Request) -> web.Response:
        if request.query.get("in") == "memory":
            return web.json_response({"rows": await asyncio.to_thread(panel.in_memory)})
        revision, picture = await panel.watch.picture()
        types = await asyncio.to_thread(panel.text_encoder_types)
        rows = list(picture["rows"].values())
        return web.json_response({"rev": revision, **picture, "rows": rows, "text_encoder_types": types})

    async def watch(request: web.Request) -> web.Response:
        asked = await _asked(request)
        client_id, watching = asked.get("client_id"), asked.get("watching")
        if not isinstance(client_id, str) or not isinstance(watching, bool):
            return _refused("client_id must be a text and watching true or false", 400)
        if not watching:
            panel.watch.stop(client_id)
            return web.json_response({"watching": False})
        try:
            if not panel.watch.start(client_id):
                return _refused("no client with this id has a socket; connect to /ws first", 409)
        except TooManyWatchers:
            return _refused("too many pages show the panel; close one", 503)
        return web.json_response({"watching": True})

    async def act(request: web.Request) -> web.Response:
        try:
            action = Action(request.match_info["action"])
        except ValueError:
            return _refused(f"actions are {', '.join(Action)}", 404)
        asked = await _asked(request)
        row_id, options = asked.pop("id", None), asked
        if not all(isinstance(text, str) and len(text) <= _TEXT_LENGTH for text in (row_id, *options.values())):
            return _refused('the body must be an object of texts with an "id"', 400)
        async with turns:
            try:
                said = await asyncio.to_thread(panel.actions.do, action, str(row_id), options)
            except NotPossible as error:
                return _refused(str(error), 409)
        return web.json_response({"said": said})

    routes.get("/keepwarm/models")(models)
    routes.post("/keepwarm/watch")(watch)
    routes.post("/keepwarm/models/{action}")(writes(act))


async def _asked(request: web.Request) -> dict[str, Any]:
    """The body's object; an empty one for anything else."""
    try:
        found = json.loads(await request.text())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refused(why: str, status: int) -> web.Response:
    return web.json_response({"error": why}, status=status)
