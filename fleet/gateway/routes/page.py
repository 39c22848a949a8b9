"""``/fleet``: the page of the fleet, what it draws, and a way to each server."""

import os
import time
from typing import Any

from aiohttp import web

from app.files.strict_json import json_answer
from app.routes.static_folder import StaticFolder
from fleet.gateway.client_hub import ClientHub
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import Upstream
from fleet.interface import Fleet
from fleet.values import Decision, JobView, ServerView

PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "page")
MOST_JOBS, MOST_DECISIONS, MOST_MODELS = 500, 100, 200
# Nothing on the page comes from elsewhere, and nothing may be put around it.
_POLICY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'self'; object-src 'none'; base-uri 'none'"
}


class PageRoutes:
    """The page's files, ``/fleet/state``, and ``/fleet/servers/{id}/…``: GET requests to one server."""

    def __init__(self, fleet: Fleet, servers: ServerList, hub: ClientHub, upstream: Upstream) -> None:
        self._fleet, self._servers, self._hub, self._upstream = fleet, servers, hub, upstream
        self._files = StaticFolder(PAGE)

    def add_undoubled(self, routes: web.RouteTableDef) -> None:
        """Register the routes; they have no twin under ``/api``."""
        routes.get("/fleet")(self._page)
        routes.get("/fleet/state")(self._state)
        routes.get("/fleet/servers/{id}/{path:.*}")(self._one_server)
        routes.get("/fleet/{name:[a-z]+[.](?:js|css)}")(self._file)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(os.path.join(PAGE, "index.html"), headers={**_POLICY, "Cache-Control": "no-store"})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return await self._files.answer(request.match_info["name"])

    async def _state(self, request: web.Request) -> web.Response:
        await self._servers.refresh()
        jobs, decisions = await self._fleet.jobs(), await self._fleet.decisions(MOST_DECISIONS)
        counts: dict[str | None, int] = {}
        for job in jobs:
            counts[job.server_id] = counts.get(job.server_id, 0) + 1
        return json_answer(
            {
                "now_s": time.time(),
                "clients": sum(1 for _ in self._hub.connected_clients()),
                "servers": [_server(view, counts.get(view.server_id, 0)) for view in self._servers.views()],
                "jobs": [_job(job) for job in jobs[:MOST_JOBS]],
                "decisions": [_decision(one) for one in decisions],
            }
        )

    async def _one_server(self, request: web.Request) -> web.StreamResponse:
        base_url = self._servers.url_of(request.match_info["id"])
        if base_url is None:
            return web.Response(status=404, text="No server of that id is up.")
        below = request.rel_url.raw_path_qs.split("/", 4)[4]
        return await self._upstream.pass_on(request, base_url, "/" + below)


def _server(view: ServerView, jobs: int) -> dict[str, Any]:
    warm = view.summary.warm
    return {
        "server_id": view.server_id,
        "base_url": view.base_url,
        "state": str(view.state),
        "backlog_s": view.backlog_s,
        "restarts": view.restarts,
        "accelerator": view.accelerator,
        "jobs": jobs,
        "cap_bytes": view.summary.cap_bytes,
        "warm_bytes": sum(model.bytes for model in warm),
        "warm": [{"folder": one.file.folder, "name": one.file.name, "tier": one.tier, "held": one.held} for one in warm[:MOST_MODELS]],
    }


def _job(view: JobView) -> dict[str, Any]:
    shown = {"prompt_id": view.prompt_id, "state": str(view.state), "server_id": view.server_id, "attempts": view.attempts}
    return {**shown, "submitted_s": view.submitted_s}


def _decision(decision: Decision) -> dict[str, Any]:
    estimates = [{"server_id": one.server_id, "wait_s": one.wait_s, "load_s": one.load_s} for one in decision.estimates[:8]]
    shown = {"prompt_id": decision.prompt_id, "server_id": decision.server_id, "reason": decision.reason, "at_s": decision.at_s}
    return {**shown, "estimates": estimates}
