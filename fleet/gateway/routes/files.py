"""``/view``, ``/upload`` and what servers fetch of them: files wherever they are in the fleet."""

import asyncio
import os
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

import folder_paths
from app.files.active_content import file_headers
from app.files.atomic_file import write_atomic
from app.files.off_loop import WRITE_LIMIT_S, off_loop
from app.files.path_guard import UnsafePath, contained_path
from app.files.stored_file import FileReference
from app.routes.internal import newest_files
from app.routes.upload import UploadRoutes
from app.routes.view import ViewRoutes
from fleet.gateway.file_marks import KINDS, mark, named_file, unmark
from fleet.gateway.inputs import INPUT_PATH, Inputs, own_path, view_url
from fleet.gateway.server_list import ServerList
from fleet.gateway.upstream import Upstream

_QUERY = ("preview", "channel")
MOST_ORIGINAL_BYTES = 1 << 30


class FileRoutes:
    """Uploads stay here until a prompt names them; results are passed on from the server that made them."""

    def __init__(self, inputs: Inputs, servers: ServerList, upstream: Upstream, hashing_function: str = "sha256") -> None:
        self._inputs, self._servers, self._upstream = inputs, servers, upstream
        self._own = ViewRoutes()
        self._uploads = UploadRoutes(hashing_function, self._bring)

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/view")(self.view)
        self._uploads.add_routes(routes)

    def add_undoubled(self, routes: web.RouteTableDef) -> None:
        """Register what has no twin under ``/api``."""
        routes.get(INPUT_PATH + "{digest}/{kind}/{path:.+}")(self._input)
        routes.get("/internal/files/{kind}")(self._names)

    async def view(self, request: web.Request) -> web.StreamResponse:
        """A file: of the server that its subfolder is marked with, of this gateway, or of the one server that has it."""
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        given = query["filename"]
        name, annotated = named_file(given)
        kind = annotated if name != given else query.get("type", "output")
        subfolder = query.get("subfolder", "")
        if name.startswith("@") and not subfolder:
            subfolder, _, name = name.rpartition("/")
        if unmark(subfolder)[0] is None and await self._is_here(name, subfolder, kind):
            return await self._own.answer(request)
        return await self.answer(request, name, subfolder, kind, {key: query[key] for key in _QUERY if key in query})

    async def answer(
        self, request: web.Request, name: str, subfolder: str, kind: str, more: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """A file of a server, by its reference; *more* are parameters for ``/view`` there. 404 when nobody has it."""
        base_url, folder = await self._place(name, subfolder, kind)
        if base_url is None:
            return web.Response(status=404, text="No server that is up has this file.")
        parameters = {"filename": name, "subfolder": folder, "type": kind, **(more or {})}
        return await self._upstream.pass_on(request, base_url, "/view?" + urlencode(parameters, quote_via=quote))

    async def size_of(self, name: str, subfolder: str, kind: str) -> int | None:
        """The bytes of a file of a server; None when it is not to be had."""
        base_url, folder = await self._place(name, subfolder, kind)
        if base_url is None:
            return None
        try:
            async with self._upstream.session.head(view_url(base_url, name, folder, kind)) as answer:
                return int(answer.headers["Content-Length"]) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
            return None

    async def _place(self, name: str, subfolder: str, kind: str) -> tuple[str | None, str]:
        """Where a file is: a server's base URL and the subfolder there."""
        server_id, folder = unmark(subfolder)
        base_url = self._servers.url_of(server_id) if server_id is not None else await self._only_owner(name, folder, kind)
        return base_url, folder

    async def _is_here(self, name: str, subfolder: str, kind: str) -> bool:
        """Whether the gateway has that file, or must refuse its name."""
        try:
            return await off_loop(FileReference(name, subfolder, kind).locate) is not None
        except UnsafePath:
            return True

    async def _only_owner(self, name: str, subfolder: str, kind: str) -> str | None:
        """The server with a file that no mark names. Raises ``HTTPConflict`` when several have different ones of that name."""
        if kind not in KINDS:
            return None
        urls = list(self._servers.reachable().values())
        tags = await asyncio.gather(*(self._tag(view_url(url, name, subfolder, kind)) for url in urls))
        owners = [url for url, tag in zip(urls, tags, strict=True) if tag is not None]
        if len(set(tags) - {None}) > 1:
            raise web.HTTPConflict(
                text="Several servers have different files of this name; the job's outputs say which subfolder to ask for."
            )
        return owners[0] if owners else None

    async def _tag(self, url: str) -> str | None:
        """What tells the file from another one, None when it is not there."""
        try:
            async with self._upstream.session.head(url) as answer:
                return answer.headers.get("ETag", url) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _bring(self, original: FileReference) -> None:
        """Fetch the original of a mask from the server that has it, to the same place here."""
        if await self._is_here(original.name, original.subfolder, original.kind):
            return
        name, annotated = named_file(original.name)
        kind = annotated if name != original.name else original.kind
        base_url, folder = await self._place(name, original.subfolder, kind)
        root = folder_paths.get_directory_by_type(kind)
        if base_url is None or root is None:
            return
        path = await off_loop(contained_path, root, f"{original.subfolder}/{name}" if original.subfolder else name)
        async with self._upstream.session.get(view_url(base_url, name, folder, kind)) as answer:
            if answer.status == 200 and (answer.content_length or 0) <= MOST_ORIGINAL_BYTES:
                content = await answer.read()
                await off_loop(_write, path, content, limit_s=WRITE_LIMIT_S)

    async def _input(self, request: web.Request) -> web.StreamResponse:
        """An uploaded file, as long as it has the content that is asked for."""
        digest, kind, below = (request.match_info[name] for name in ("digest", "kind", "path"))
        path = await off_loop(own_path, kind, below)
        if path is None or await self._inputs.digest(path) != digest:
            return web.Response(status=404)
        return web.FileResponse(path, headers=file_headers(os.path.basename(path), None))

    async def _names(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        root = folder_paths.get_directory_by_type(kind) if kind in KINDS else None
        if root is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        names = [f"{name} [{kind}]" for name in await off_loop(newest_files, root)] if kind == "input" else []
        told = await self._upstream.get_json_from_all(self._servers.reachable(), f"/internal/files/{kind}")
        for server_id, listed in told.items():
            names += [mark(server_id, str(name)) for name in listed] if kind != "input" else [name for name in listed if name not in names]
        return web.json_response(names)


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomic(path, content)
