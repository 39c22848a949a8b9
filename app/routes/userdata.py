"""Files that the page keeps for a user: workflows, templates, its own style sheet."""

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from aiohttp import web

from app.files.active_content import OCTET_STREAM, disposition, guessed_type
from app.files.atomic_file import reserve, write_atomic
from app.files.body_budget import bodies_of
from app.files.identity import UserFiles
from app.files.off_loop import WRITE_LIMIT_S, off_loop
from app.files.path_guard import UnsafePath, check_relative_name
from app.routes.userdata_listing import file_info, list_entries, list_files
from utils.path_safety import is_dangerous_content_type

# The one style sheet that the page loads from a user's folder.
USER_STYLES = "user.css"


class UserDataRoutes:
    """``/userdata`` and ``/v2/userdata``. Disk work runs on the loop's default executor."""

    def __init__(self, user_manager: UserFiles) -> None:
        self.user_manager = user_manager

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes. ``{file}`` is one segment: slashes in it arrive as ``%2F``."""
        routes.get("/userdata")(self._list)
        routes.get("/v2/userdata")(self._list_v2)
        routes.get("/userdata/{file}")(self._get)
        routes.post("/userdata/{file}")(self._post)
        routes.delete("/userdata/{file}")(self._delete)
        routes.post("/userdata/{file}/move/{dest}")(self._move)

    def _path(self, request: web.Request, name: str | None) -> str:
        """Where *name* lies for the user who asks. Raises ``HTTPBadRequest`` or ``HTTPForbidden``."""
        try:
            if name is not None:
                check_relative_name(name)
            path = self.user_manager.get_request_user_filepath(request, name, create_dir=False)
        except KeyError:
            raise web.HTTPForbidden(text="Unknown user.") from None
        except UnsafePath as error:
            raise _refusal(error) from None
        if path is None:
            raise web.HTTPForbidden(text="That path is outside of the user's folder.")
        return os.fspath(path)

    async def _located(self, request: web.Request, name: str | None) -> str:
        """The same off the loop, for it looks at the disk."""
        return await off_loop(self._path, request, name)

    async def _list(self, request: web.Request) -> web.Response:
        folder = request.query.get("dir", "")
        if not folder:
            return web.Response(status=400, text="The query parameter 'dir' is missing.")
        path = await self._located(request, folder)
        options = {name: request.query.get(name, "").lower() == "true" for name in ("recurse", "full_info", "split")}
        try:
            return web.json_response(await off_loop(lambda: list_files(path, **options)))
        except (FileNotFoundError, NotADirectoryError):
            return web.Response(status=404, text="There is no such folder.")

    async def _list_v2(self, request: web.Request) -> web.Response:
        name = request.query.get("path", "").strip("/")
        root = await self._located(request, None)
        path = await self._located(request, name) if name else root
        relative = os.path.relpath(path, root)
        prefix = "" if relative == os.curdir else relative.replace(os.sep, "/") + "/"
        try:
            return web.json_response(await off_loop(list_entries, path, prefix))
        except (FileNotFoundError, NotADirectoryError):
            if name:
                return web.json_response({"error": "Requested path not found"}, status=404)
            return web.json_response([])

    async def _get(self, request: web.Request) -> web.StreamResponse:
        path = await self._located(request, request.match_info["file"])
        if not await off_loop(os.path.isfile, path):
            return web.Response(status=404)
        name = os.path.basename(path)
        content_type = guessed_type(name)
        neutral = is_dangerous_content_type(content_type) and request.match_info["file"] != USER_STYLES
        return web.FileResponse(
            path,
            headers={
                "Content-Type": OCTET_STREAM if neutral else content_type,
                "Content-Disposition": disposition(name, "attachment"),
                "X-Content-Type-Options": "nosniff",
            },
        )

    async def _post(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        path = await self._located(request, name)
        overwrite = request.query.get("overwrite", "").lower() != "false"
        with bodies_of(request).share() as share:
            body = await share.read(request)
            return await self._answer_written(request, path, lambda: _store(path, body, overwrite))

    async def _delete(self, request: web.Request) -> web.Response:
        path = await self._located(request, request.match_info["file"])
        if not await off_loop(os.path.isfile, path):
            return web.Response(status=404)
        try:
            await off_loop(os.remove, path)
        except FileNotFoundError:
            return web.Response(status=404)
        return web.Response(status=204)

    async def _move(self, request: web.Request) -> web.Response:
        source = await self._located(request, request.match_info["file"])
        destination = await self._located(request, request.match_info["dest"])
        if not await off_loop(os.path.isfile, source):
            return web.Response(status=404)
        overwrite = request.query.get("overwrite", "").lower() == "true"
        return await self._answer_written(request, destination, lambda: _move_file(source, destination, overwrite))

    async def _answer_written(self, request: web.Request, path: str, write: Callable[[], None]) -> web.Response:
        """Run *write* off the loop, then answer with the file's relative path or, with ``full_info=true``, its details."""
        root = await self._located(request, None)
        relative = os.path.relpath(path, root).replace(os.sep, "/")
        try:
            await off_loop(write, limit_s=WRITE_LIMIT_S)
            if request.query.get("full_info", "").lower() == "true":
                return web.json_response(await off_loop(file_info, path, relative))
        except FileNotFoundError:
            return web.Response(status=404, text="The file is gone.")
        except FileExistsError:
            return web.Response(status=409, text="File already exists")
        except (IsADirectoryError, NotADirectoryError):
            return web.Response(status=409, text="A folder, or a file where a folder is needed, is in the way.")
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return web.Response(status=400, text="The file name is too long.")
        return web.json_response(relative)


def _refusal(error: UnsafePath) -> web.HTTPException:
    return web.HTTPForbidden(text=str(error)) if error.escapes else web.HTTPBadRequest(text=str(error))


def _make_room(path: str, overwrite: bool) -> bool:
    """Prepare *path* to be written; True when an empty file now holds the place. Raises ``FileExistsError`` and friends."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(path) from None
    if os.path.isdir(path):
        raise IsADirectoryError(path)
    if overwrite:
        return False
    if not reserve(path):
        raise FileExistsError(path)
    return True


def _store(path: str, body: bytes, overwrite: bool) -> None:
    _fill(path, overwrite, lambda: write_atomic(path, body))


def _move_file(source: str, destination: str, overwrite: bool) -> None:
    if source == destination:
        return
    _fill(destination, overwrite, lambda: os.replace(source, destination))


def _fill(path: str, overwrite: bool, write: Callable[[], Any]) -> None:
    reserved = _make_room(path, overwrite)
    try:
        write()
    except BaseException:
        if reserved:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
