"""The panel as a part of the server's start."""

import importlib
from typing import Any

from aiohttp import web

from ..preload.startup import Preloading
from ..routes import describe, innermost
from ..write_guard import WriteGuard
from .panel import Panel
from .routes import add_routes


def install(preloading: Preloading, providers: list[Any]) -> None:
    """Serve the panel in the server of this process, if there is one; *providers* are the pack's."""
    server = getattr(importlib.import_module("server").PromptServer, "instance", None)
    if server is None:
        return
    stores = [(provider.url, innermost(provider).store) for provider in providers]
    panel = Panel(server, preloading, lambda: [describe(provider) for provider in providers], stores)
    add_routes(server.routes, panel, WriteGuard(importlib.import_module("comfy.cli_args").args, server))

    async def end(app: web.Application) -> None:
        await panel.watch.close()

    server.app.on_shutdown.append(end)
