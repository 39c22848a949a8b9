"""``/queue``, ``/history``, ``/interrupt`` and ``/free``: looking at prompts and withdrawing them."""

import functools
import re
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import large_json_answer
from comfy_execution.prompts.queue import PromptQueue, in_order

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SHOWN_COLUMNS = 5


class QueueHolder(Protocol):
    """What the routes need of ``PromptServer``."""

    @property
    def prompt_queue(self) -> PromptQueue:
        """The queue of prompts; packs may put another in its place."""


def integer_parameter(request: web.Request, name: str) -> int | None:
    """A whole number of the query, None when it is not given. Raises ``HTTPBadRequest``."""
    text = request.query.get(name)
    if text is None:
        return None
    if _INTEGER.fullmatch(text) is None:
        raise web.HTTPBadRequest(text=f"{name} must be an integer")
    return int(text)


def shown_rows(rows: list[tuple]) -> list[tuple]:
    """Queue rows without their sensitive column."""
    return [tuple(row[:_SHOWN_COLUMNS]) for row in rows]


def _has_id(prompt_id: str, row: tuple) -> bool:
    return row[1] == prompt_id


class QueueRoutes:
    """The routes over ``server.prompt_queue``."""

    def __init__(self, server: QueueHolder) -> None:
        self._server = server

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/queue")(self._queue)
        routes.post("/queue")(self._change_queue)
        routes.get("/history")(self._history)
        routes.get("/history/{prompt_id}")(self._history_entry)
        routes.post("/history")(self._change_history)
        routes.post("/interrupt")(self._interrupt)
        routes.post("/free")(self._free)

    async def _queue(self, request: web.Request) -> web.Response:
        running, waiting = self._server.prompt_queue.get_current_queue_volatile()
        return await large_json_answer({"queue_running": shown_rows(running), "queue_pending": shown_rows(in_order(waiting))})

    async def _change_queue(self, request: web.Request) -> web.Response:
        clear, prompt_ids = await read_removal(request)
        queue = self._server.prompt_queue
        if clear:
            queue.wipe_queue()
        for prompt_id in prompt_ids:
            queue.delete_queue_item(functools.partial(_has_id, prompt_id))
        return web.Response(status=200)

    async def _history(self, request: web.Request) -> web.Response:
        max_items, offset = integer_parameter(request, "max_items"), integer_parameter(request, "offset")
        return await large_json_answer(self._server.prompt_queue.get_history(max_items=max_items, offset=-1 if offset is None else offset))

    async def _history_entry(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        # Not mapped, the queue would copy the entry.
        return await large_json_answer(self._server.prompt_queue.get_history(prompt_id=prompt_id, map_function=lambda entry: entry))

    async def _change_history(self, request: web.Request) -> web.Response:
        clear, prompt_ids = await read_removal(request)
        queue = self._server.prompt_queue
        if clear:
            queue.wipe_history()
        for prompt_id in prompt_ids:
            queue.delete_history_item(prompt_id)
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await read_json_object(request)
        except web.HTTPBadRequest:
            # Scripts send nothing, or what is no object: whatever runs is meant.
            body = {}
        prompt_id = body.get("prompt_id")
        if prompt_id is None:
            self._server.prompt_queue.interrupt_all()
        elif isinstance(prompt_id, str) and prompt_id:
            self._server.prompt_queue.interrupt_if_running(prompt_id)
        else:
            raise web.HTTPBadRequest(text="prompt_id must be a prompt's id, or be left out to stop whatever runs")
        return web.Response(status=200)

    async def _free(self, request: web.Request) -> web.Response:
        body = await read_json_object(request)
        wanted = [flag for flag in ("unload_models", "free_memory") if wants(body, flag)]
        for flag in wanted:
            self._server.prompt_queue.set_flag(flag, True)
        return web.Response(status=200)


def wants(body: Mapping[str, Any], name: str) -> bool:
    """What a body says by true or false, false when it says nothing. Raises ``HTTPBadRequest`` for everything else, so that no
    misspelt wish does more than was meant."""
    given = body.get(name)
    if given is None or isinstance(given, bool):
        return bool(given)
    raise web.HTTPBadRequest(text=f"{name} must be true or false")


async def read_removal(request: web.Request) -> tuple[bool, list[str]]:
    """What ``{clear, delete}`` asks for. Raises ``HTTPBadRequest``."""
    body = await read_json_object(request)
    prompt_ids = body.get("delete")
    if prompt_ids is None:
        prompt_ids = []
    if not isinstance(prompt_ids, list) or not all(isinstance(prompt_id, str) for prompt_id in prompt_ids):
        raise web.HTTPBadRequest(text="delete must be a list of prompt ids")
    return wants(body, "clear"), prompt_ids
