"""What the gateway says for the whole fleet: ``/system_stats``, ``/features``; and passing on what it does not know."""

import asyncio
import os
from typing import Any

from aiohttp import web

from app.files.json_body import read_json_object
from app.files.off_loop import off_loop
from app.files.path_guard import UnsafePath
from app.files.strict_json import json_answer
from app.routes.static_folder import StaticFolder, file_answer
from fleet.gateway.server_features import ServerFeatures
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import ServerSilent, Upstream

_NEVER_STORED = {"Cache-Control": "no-store, no-cache, must-revalidate", "Pragma": "no-cache", "Expires": "0"}


class WholeRoutes:
    """*web_root*: the page's folder, which the gateway serves itself; None has the first server do it."""

    def __init__(self, servers: ServerList, upstream: Upstream, features: ServerFeatures, web_root: str | None) -> None:
        self._servers, self._upstream, self._features = servers, upstream, features
        self._page = StaticFolder(web_root) if web_root is not None else None

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/system_stats")(self._system_stats)
        routes.get("/features")(self._told_features)

    def add_undoubled(self, routes: web.RouteTableDef) -> None:
        """Register what has no twin under ``/api``."""
        routes.get("/")(self._index)
        routes.patch("/internal/logs/subscribe")(self._subscribe)

    def add_last(self, app: web.Application) -> None:
        """Everything else. Call after all other routes."""
        app.router.add_route("*", "/{path:.*}", self._others)

    async def _system_stats(self, request: web.Request) -> web.Response:
        server_id, _ = self._servers.first()
        told = await self._upstream.get_json_from_all(self._servers.reachable(), "/system_stats")
        if not told:
            raise ServerSilent("no server answered /system_stats")
        first = told.get(server_id) or next(iter(told.values()))
        devices: list[dict[str, Any]] = []
        for name, stats in told.items():
            devices += [{**device, "name": f"{name}: {device.get('name')}", "index": len(devices)} for device in stats.get("devices") or ()]
        return json_answer({"system": first.get("system") or {}, "devices": devices})

    async def _told_features(self, request: web.Request) -> web.Response:
        return json_answer(self._features.all())

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if self._page is None:
            return await self._pass_on(request)
        return web.FileResponse(os.path.join(self._page.root, "index.html"), headers=_NEVER_STORED)

    async def _subscribe(self, request: web.Request) -> web.Response:
        """A client's socket at each server has its id, so each can send it its log."""
        body = await read_json_object(request)
        urls = self._servers.reachable().values()
        answers = await asyncio.gather(*(self._upstream.patch(url, "/internal/logs/subscribe", body) for url in urls))
        return web.Response(status=max((status for status, _ in answers), default=503))

    async def _others(self, request: web.Request) -> web.StreamResponse:
        """A file of the page; or else what the first server answers: routes of packs, their scripts, help texts, previews of models."""
        if self._page is not None and request.method in ("GET", "HEAD"):
            try:
                path = await off_loop(self._page.find, request.match_info["path"])
            except UnsafePath as error:
                return web.Response(status=error.status)
            if path is not None:
                return file_answer(path)
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        return await self._upstream.pass_on(request, self._servers.first()[1])
