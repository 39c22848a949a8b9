"""``/object_info``, ``/embeddings`` and ``/models``: what the servers together have."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

import folder_paths
from app.files.off_loop import off_loop
from app.files.strict_json import dumps, json_answer
from fleet.gateway.inputs import uploaded_names
from fleet.gateway.node_info_merge import UPLOAD_KINDS, merged
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import SILENCE_TIMEOUT_S, ServerSilent, Upstream
from fleet.interface import NoServer

MERGE_LIMIT_S = 120.0
# Uploads of Comfy API v2 are named by their references, not chosen from lists.
ASSETS = "assets/"


class NodeInfoRoutes:
    """Asks all servers and joins their answers; a server that does not answer is left out as long as another one does."""

    def __init__(self, servers: ServerList, upstream: Upstream) -> None:
        self._servers, self._upstream = servers, upstream

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/object_info")(self._all)
        routes.get("/object_info/{node_class}")(self._all)
        routes.get("/embeddings")(self._names)
        routes.get("/models")(self._names)
        routes.get("/models/{folder}")(self._names)

    async def _all(self, request: web.Request) -> web.Response:
        bodies = await self._bodies(_plain_path(request))
        if len(set(bodies)) == 1 and not await off_loop(uploaded_names, "input"):
            return web.Response(body=bodies[0], content_type="application/json", charset="utf-8")
        return web.json_response(text=await off_loop(self._merge, bodies, limit_s=MERGE_LIMIT_S))

    @staticmethod
    def _merge(bodies: list[bytes]) -> str:
        names = [name for name in uploaded_names("input") if not name.startswith(ASSETS)]
        uploads: dict[str, list[str]] = {kind: folder_paths.filter_files_content_types(names, [kind]) for kind in UPLOAD_KINDS}
        return dumps(merged(_objects(bodies, dict), uploads), clamp_infinity=True)

    async def _names(self, request: web.Request) -> web.Response:
        bodies = await self._bodies(_plain_path(request))
        if not bodies:
            return web.Response(status=404)
        return json_answer(list(dict.fromkeys(name for names in _objects(bodies, list) for name in names if isinstance(name, str))))

    async def _bodies(self, path: str) -> list[bytes]:
        urls = list(self._servers.reachable().values())
        if not urls:
            raise NoServer("no server of the fleet is up")
        asked = await asyncio.gather(*(self._upstream.get(url, path, SILENCE_TIMEOUT_S) for url in urls), return_exceptions=True)
        silent = [answer for answer in asked if isinstance(answer, BaseException)]
        for error in silent:
            if not isinstance(error, ServerSilent) or len(silent) == len(asked):
                raise error
        return [answer[1] for answer in asked if not isinstance(answer, BaseException) and answer[0] == 200]


def _plain_path(request: web.Request) -> str:
    """The path as servers know it, encoded as it came."""
    return request.rel_url.raw_path.removeprefix("/api")


def _objects(bodies: list[bytes], kind: Callable[..., Any]) -> list[Any]:
    decoded = [json.loads(body) for body in bodies]
    return [value for value in decoded if isinstance(value, kind)]  # type: ignore[arg-type]
