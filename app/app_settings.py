"""Each user's settings, kept in ``comfy.settings.json`` in the user's folder."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from app.files.atomic_file import write_atomic
from app.files.identity import UserFiles
from app.files.json_body import parse_strict, read_json, read_json_object

log = logging.getLogger(__name__)

SETTINGS_FILE = "comfy.settings.json"


class AppSettings:
    """Reads and writes settings; the routes do so on one thread of their own, so that no update is lost."""

    def __init__(self, user_manager: UserFiles) -> None:
        self.user_manager = user_manager
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settings")

    def get_settings(self, request: web.Request) -> dict[str, Any]:
        """The settings of the user who sent *request*; ``{}`` when there are none or they cannot be read.

        A file that is not JSON is set aside under another name. Blocks. Raises ``HTTPUnauthorized`` for an unknown user.
        """
        path = self._path(request)
        try:
            return _load(path)
        except OSError as error:
            log.warning("The settings %s cannot be read (%s); using defaults. Check the file's permissions.", path, error)
            return {}

    def save_settings(self, request: web.Request, settings: dict[str, Any]) -> None:
        """Replace the settings of the user who sent *request*. Blocks. Raises ``HTTPUnauthorized`` or ``OSError``."""
        _save(self._path(request), settings)

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/settings`` and ``/settings/{id}``."""
        routes.get("/settings")(self._get_all)
        routes.get("/settings/{id}")(self._get_one)
        routes.post("/settings")(self._post_all)
        routes.post("/settings/{id}")(self._post_one)

    def _path(self, request: web.Request) -> str:
        try:
            path = self.user_manager.get_request_user_filepath(request, SETTINGS_FILE, create_dir=False)
        except KeyError:
            raise web.HTTPUnauthorized(text="Unknown user: choose a user again.") from None
        if path is None:
            raise web.HTTPUnauthorized(text="This user has no settings.")
        return path

    async def _on_disk(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def _get_all(self, request: web.Request) -> web.Response:
        return web.json_response(await self._on_disk(self.get_settings, request))

    async def _get_one(self, request: web.Request) -> web.Response:
        settings = await self._on_disk(self.get_settings, request)
        return web.json_response(settings.get(request.match_info["id"]))

    async def _post_all(self, request: web.Request) -> web.Response:
        path = self._path(request)
        return await self._merge(path, await read_json_object(request))

    async def _post_one(self, request: web.Request) -> web.Response:
        path = self._path(request)
        return await self._merge(path, {request.match_info["id"]: await read_json(request)})

    async def _merge(self, path: str, changes: dict[str, Any]) -> web.Response:
        try:
            await self._on_disk(_update, path, changes)
        except OSError as error:
            log.error("The settings %s cannot be saved: %s", path, error)
            return web.Response(status=500, text="The settings cannot be saved; the server's log says why.")
        return web.Response(status=200)


def _update(path: str, changes: dict[str, Any]) -> None:
    _save(path, {**_load(path), **changes})


def _save(path: str, settings: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomic(path, json.dumps(settings, indent=4).encode())


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return {}
    try:
        settings = parse_strict(content)
        if isinstance(settings, dict):
            return settings
        problem = f"holds a {type(settings).__name__}, not an object"
    except ValueError as error:
        problem = str(error)
    aside = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    os.replace(path, aside)
    log.warning("The settings %s are damaged (%s); using defaults. The damaged file is kept as %s.", path, problem, aside)
    return {}
