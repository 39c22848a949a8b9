"""Each user's settings, kept in ``comfy.settings.json`` in the user's folder."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from app.files.identity import UserFiles
from app.files.json_body import read_json, read_json_object
from app.files.json_file import JsonFile, NotKeepable
from comfy.units import MIB

log = logging.getLogger(__name__)

SETTINGS_FILE = "comfy.settings.json"
MAX_SETTINGS_BYTES = 4 * MIB


class AppSettings:
    """Reads and writes settings; the routes do so on one thread of their own, so that no update is lost."""

    def __init__(self, user_manager: UserFiles) -> None:
        self.user_manager = user_manager
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settings")

    def get_settings(self, request: web.Request) -> dict[str, Any]:
        """The settings of the user who sent *request*; ``{}`` when there are none or they cannot be read.

        A damaged file is set aside, and those before the last change are used. Blocks. Raises ``HTTPUnauthorized`` for an unknown user.
        """
        path = self._path(request)
        try:
            return _file(path).read()
        except OSError as error:
            log.warning("The settings %s cannot be read (%s); using defaults. Check the file's permissions.", path, error)
            return {}

    def save_settings(self, request: web.Request, settings: dict[str, Any]) -> None:
        """Replace the settings of the user who sent *request*. Blocks.

        Raises ``HTTPUnauthorized``, ``OSError``, and ``NotKeepable`` for what would not read back or is too large.
        """
        _file(self._path(request)).write(settings)

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
        except NotKeepable as error:
            return web.Response(status=413, text=f"The settings are not saved: {error}.")
        except OSError as error:
            log.error("The settings %s cannot be saved: %s", path, error)
            return web.Response(status=500, text="The settings cannot be saved; the server's log says why.")
        return web.Response(status=200)


def _file(path: str) -> JsonFile:
    return JsonFile(path, "settings", MAX_SETTINGS_BYTES)


def _update(path: str, changes: dict[str, Any]) -> None:
    file = _file(path)
    settings = file.read()
    if any(name not in settings or settings[name] != value for name, value in changes.items()):
        file.write({**settings, **changes})
