"""The scripts that the page loads: those of the web frontend and those of each node pack."""

import os
from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import web

from app.files.off_loop import off_loop
from app.routes.static_folder import StaticFolder
from utils.folder_walk import walk


class ExtensionRoutes:
    """``/extensions`` and the folder mounts below it.

    *web_root* is the frontend's folder (None without one), *web_dirs* maps a pack's name to its web folder
    (``nodes.EXTENSION_WEB_DIRS``). Both are read at each request: construct this before or after the packs are loaded.
    """

    def __init__(self, web_root: str | None, web_dirs: Mapping[str, str]) -> None:
        self.web_root = web_root
        self.web_dirs = web_dirs

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/extensions``."""
        routes.get("/extensions")(self._list)

    def add_static(self, app: web.Application) -> None:
        """Mount the packs' web folders at ``/extensions/<pack>``, and the frontend's own at what is left of ``/extensions``."""
        app.router.add_get("/extensions/{path:.+}", self._script)

    def list_scripts(self) -> list[str]:
        """The URLs of all scripts, the frontend's first. Blocks on the disk."""
        own = _scripts_below(os.path.join(self.web_root, "extensions")) if self.web_root is not None else []
        scripts = [f"/extensions/{quote(path)}" for path in own]
        for pack, folder in list(self.web_dirs.items()):
            scripts += [f"/extensions/{quote(pack)}/{quote(path)}" for path in _scripts_below(folder)]
        return scripts

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(await off_loop(self.list_scripts))

    async def _script(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        packs = [pack for pack in list(self.web_dirs) if path.startswith(pack + "/")]
        if packs:
            pack = max(packs, key=len)
            return await StaticFolder(self.web_dirs[pack]).answer(path[len(pack) + 1 :])
        if self.web_root is None:
            return web.Response(status=404)
        return await StaticFolder(os.path.join(self.web_root, "extensions")).answer(path)


def _scripts_below(folder: str) -> list[str]:
    """Paths with ``/`` of every ``*.js`` below *folder*, relative to it, without hidden files and folders."""
    if not os.path.isdir(folder):
        return []
    found: list[str] = []
    for visited in walk(folder, follow_links=False, wanted=lambda name: not name.startswith(".")):
        prefix = visited.below.replace(os.sep, "/") + "/" if visited.below else ""
        found += [prefix + entry.name for entry in visited.files if entry.name.endswith(".js") and not entry.name.startswith(".")]
    return found
