"""``/internal``: what only the page uses: the log, the folders, the files for choosing one."""

import contextlib
from collections.abc import Callable

from aiohttp import web

import folder_paths
from app.files.json_body import read_json_object
from app.files.off_loop import off_loop
from app.logger import get_logs, on_flush
from app.sockets.log_subscriptions import LogSubscriptions, Send, terminal_size
from utils.folder_walk import regular_files_in

_KINDS = ("output", "input", "temp")


class InternalRoutes:
    """The sub-application for ``/internal`` (no ``/api`` twin): ``app.add_subapp("/internal", internal.get_app())``.

    *send* is ``PromptServer.send_sync``; *is_connected* tells whether a client id has a socket.
    """

    def __init__(self, send: Send, is_connected: Callable[[str], bool]) -> None:
        self.subscriptions = LogSubscriptions(send, is_connected)
        on_flush(self.subscriptions.publish)

    def get_app(self) -> web.Application:
        """A new application with the routes."""
        app = web.Application()
        routes = web.RouteTableDef()
        self.add_routes(routes)
        app.add_routes(routes)
        return app

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes without the ``/internal`` prefix."""
        routes.get("/logs")(self._logs)
        routes.get("/logs/raw")(self._raw_logs)
        routes.patch("/logs/subscribe")(self._subscribe)
        routes.get("/folder_paths")(self._folder_paths)
        routes.get("/files/{directory_type}")(self._files)

    async def _logs(self, request: web.Request) -> web.Response:
        return web.json_response("".join(f"{entry['t']} - {entry['m']}" for entry in get_logs()))

    async def _raw_logs(self, request: web.Request) -> web.Response:
        return web.json_response({"entries": get_logs(), "size": terminal_size()})

    async def _subscribe(self, request: web.Request) -> web.Response:
        body = await read_json_object(request)
        client_id, enabled = body.get("clientId"), body.get("enabled")
        if not isinstance(client_id, str) or not isinstance(enabled, bool):
            return web.Response(status=400, text="The body needs clientId (text) and enabled (true or false).")
        if enabled:
            self.subscriptions.subscribe(client_id)
        else:
            self.subscriptions.unsubscribe(client_id)
        return web.Response(status=200)

    async def _folder_paths(self, request: web.Request) -> web.Response:
        return web.json_response({key: [str(path) for path in paths] for key, (paths, _) in folder_paths.folder_names_and_paths.items()})

    async def _files(self, request: web.Request) -> web.Response:
        kind = request.match_info["directory_type"]
        directory = folder_paths.get_directory_by_type(kind) if kind in _KINDS else None
        if directory is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        names = await off_loop(newest_files, directory)
        return web.json_response([f"{name} [{kind}]" for name in names])


def newest_files(directory: str) -> list[str]:
    """Names of the files directly in *directory*, newest first, hidden ones left out. Blocks on the disk."""
    found: list[tuple[float, str]] = []
    for entry in regular_files_in(directory):
        if not entry.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.stat().st_mtime, entry.name))
    return [name for _, name in sorted(found, key=lambda item: (-item[0], item[1]))]
