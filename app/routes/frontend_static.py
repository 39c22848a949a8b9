"""Serving the web frontend, the workflow templates and the node help texts."""

import os
from collections.abc import Mapping

from aiohttp import web

from app.routes.static_folder import StaticFolder, file_answer

_NEVER_STORED = {"Cache-Control": "no-store, no-cache, must-revalidate", "Pragma": "no-cache", "Expires": "0"}


class FrontendRoutes:
    """``/`` and the static mounts of the page. An unknown path is a 404, never the page.

    *web_root* is the frontend's folder (``FrontendManager.init_frontend`` or ``--front-end-root``); None makes ``/`` answer 503
    with *missing_message*. *template_assets* maps template file names to paths, *docs_folder* holds node help; both are optional.
    """

    def __init__(
        self,
        web_root: str | None,
        template_assets: Mapping[str, str] | None = None,
        docs_folder: str | None = None,
        missing_message: str = "The web page is not installed.",
    ) -> None:
        self.web_root = web_root
        self.template_assets = dict(template_assets or {})
        self.docs_folder = docs_folder
        self.missing_message = missing_message

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/`` and the site-wide ``/user.css``, which the page asks for and which is empty."""
        routes.get("/")(self._index)
        routes.get("/user.css")(self._no_styles)

    def add_static(self, app: web.Application) -> None:
        """Mount templates, help texts and the rest of the frontend. Call last: the frontend is mounted at the root."""
        app.router.add_get("/templates/{name:.+}", self._template)
        if self.docs_folder is not None:
            app.router.add_get("/docs/{name:.+}", self._doc)
        if self.web_root is not None:
            app.router.add_get("/{name:.+}", self._page_file)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if self.web_root is None:
            return web.Response(status=503, text=self.missing_message)
        return web.FileResponse(os.path.join(self.web_root, "index.html"), headers=_NEVER_STORED)

    async def _no_styles(self, request: web.Request) -> web.Response:
        return web.Response(content_type="text/css")

    async def _template(self, request: web.Request) -> web.StreamResponse:
        path = self.template_assets.get(request.match_info["name"])
        if path is None:
            return web.Response(status=404)
        return file_answer(path)

    async def _doc(self, request: web.Request) -> web.StreamResponse:
        return await StaticFolder(self.docs_folder or "").answer(request.match_info["name"])

    async def _page_file(self, request: web.Request) -> web.StreamResponse:
        return await StaticFolder(self.web_root or "").answer(request.match_info["name"])
