"""The routes of preloading: what is held, holding and letting go, and the second phase after a restore."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from ..write_guard import WriteGuard
from .phases import Phases
from .preloader import Entry, Preloader


class Shown(Protocol):
    """What the routes need of the process's preloading."""

    preloader: Preloader | None
    phases: Phases

    def described(self) -> dict[str, Any]:
        """Every entry, as JSON data. Any thread."""


def add_preload_routes(routes: web.RouteTableDef, preloading: Shown, writes: WriteGuard) -> None:
    """Add them to the server's table; those that change something pass *writes* first."""

    async def show(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(preloading.described))

    async def restored(request: web.Request) -> web.Response:
        said = await asyncio.to_thread(preloading.phases.restored)
        return web.json_response({**said, **await asyncio.to_thread(preloading.described)})

    async def change(request: web.Request, act: Callable[[Preloader, Entry], Any]) -> web.Response:
        preloader, key = preloading.preloader, request.match_info["key"]
        entry = preloader.find(key) if preloader else None
        if preloader is None or entry is None:
            return web.json_response({"error": f"no preloaded model has the key {key!r}"}, status=404)
        await asyncio.to_thread(act, preloader, entry)
        return web.json_response(await asyncio.to_thread(preloading.described))

    async def hold(request: web.Request) -> web.Response:
        return await change(request, Preloader.load)

    async def let_go(request: web.Request) -> web.Response:
        return await change(request, Preloader.let_go)

    routes.get("/keepwarm/preload")(show)
    routes.post("/keepwarm/restored")(writes(restored))
    routes.post("/keepwarm/preload/hold/{key}")(writes(hold))
    routes.post("/keepwarm/preload/let-go/{key}")(writes(let_go))
