"""``/queue``, ``/history``, ``/interrupt`` and ``/free`` over the whole fleet."""

import asyncio

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.strict_json import large_json_answer
from app.routes.queue import integer_parameter, read_removal, wants
from fleet.gateway.histories import Histories
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import ServerSilent, Upstream
from fleet.interface import Fleet


class QueueRoutes:
    """Looking at jobs, withdrawing them, and freeing memory on every server."""

    def __init__(self, fleet: Fleet, histories: Histories, servers: ServerList, upstream: Upstream) -> None:
        self._fleet, self._histories, self._servers, self._upstream = fleet, histories, servers, upstream

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
        running, waiting = await self._histories.rows()
        return await large_json_answer({"queue_running": running, "queue_pending": waiting})

    async def _change_queue(self, request: web.Request) -> web.Response:
        clear, prompt_ids = await read_removal(request)
        _, waiting = await self._histories.rows() if clear or prompt_ids else ([], [])
        waiting_ids = [str(row[1]) for row in waiting]
        wanted = waiting_ids if clear else [prompt_id for prompt_id in waiting_ids if prompt_id in set(prompt_ids)]
        await asyncio.gather(*(self._fleet.cancel(prompt_id) for prompt_id in wanted))
        return web.Response(status=200)

    async def _history(self, request: web.Request) -> web.Response:
        max_items, offset = integer_parameter(request, "max_items"), integer_parameter(request, "offset")
        return await large_json_answer(await self._histories.entries(max_items, -1 if offset is None else offset))

    async def _history_entry(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = await self._histories.entry(prompt_id)
        return await large_json_answer({} if entry is None else {prompt_id: entry})

    async def _change_history(self, request: web.Request) -> web.Response:
        clear, prompt_ids = await read_removal(request)
        if clear:
            await self._fleet.forget(None)
        elif prompt_ids:
            await self._fleet.forget(prompt_ids)
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await read_json_object(request)
        except web.HTTPBadRequest:
            # Scripts send nothing, or what is no object: whatever runs is meant.
            body = {}
        prompt_id = body.get("prompt_id")
        if prompt_id is None:
            await self._fleet.interrupt_all()
        elif isinstance(prompt_id, str) and prompt_id:
            running, _ = await self._histories.rows()
            if any(row[1] == prompt_id for row in running):
                await self._fleet.cancel(prompt_id)
        else:
            raise web.HTTPBadRequest(text="prompt_id must be a prompt's id, or be left out to stop whatever runs")
        return web.Response(status=200)

    async def _free(self, request: web.Request) -> web.Response:
        body = await read_json_object(request)
        wanted = {flag: True for flag in ("unload_models", "free_memory") if wants(body, flag)}
        if not wanted:
            return web.Response(status=200)
        urls = self._servers.reachable()
        answers = await asyncio.gather(*(self._upstream.post(url, "/free", wanted) for url in urls.values()), return_exceptions=True)
        silent = [server_id for server_id, answer in zip(urls, answers, strict=True) if isinstance(answer, ServerSilent)]
        if silent:
            raise web.HTTPBadGateway(text=f"These servers could not be asked to free memory: {', '.join(silent)}")
        return web.Response(status=200)
