"""``/view``: the files of the input, output and temp folders, as they are or re-encoded as images."""

import asyncio
import logging
import os

from aiohttp import web

from app.files.active_content import disposition, file_headers
from app.files.off_loop import off_loop
from app.files.path_guard import UnsafePath
from app.files.stored_file import FileReference
from app.routes.view_image import PreviewFormat, encode_channel, encode_preview
from comfy.images.picture_files import PictureRefused

log = logging.getLogger(__name__)

_CONCURRENT_ENCODINGS = 2
ENCODE_LIMIT_S = 120.0


class ViewRoutes:
    """Serves stored files with Range and ETag; previews are encoded on worker threads, two at a time."""

    def __init__(self) -> None:
        self._encoding = asyncio.Semaphore(_CONCURRENT_ENCODINGS)

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/view``."""
        routes.get("/view")(self.answer)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The file that the query names; 400, 403, 404 and 415 say what is wrong with it."""
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        reference = FileReference(query["filename"], query.get("subfolder", ""), query.get("type", "output"))
        try:
            path = await off_loop(reference.locate)
        except UnsafePath as error:
            return web.Response(status=error.status, text=str(error))
        if path is None:
            return web.Response(status=404)
        if "preview" in query or query.get("channel") in ("rgb", "a"):
            return await self._encoded(request, path)
        return web.FileResponse(path, headers=file_headers(os.path.basename(path), request.headers.get("Sec-Fetch-Dest")))

    async def _encoded(self, request: web.Request, path: str) -> web.Response:
        channel = request.query.get("channel", "rgba")
        name = os.path.basename(path)
        try:
            async with self._encoding:
                if "preview" in request.query:
                    wanted = PreviewFormat.parse(request.query["preview"])
                    content_type = f"image/{wanted.name}"
                    body = await off_loop(encode_preview, path, wanted, channel, limit_s=ENCODE_LIMIT_S)
                else:
                    content_type = "image/png"
                    body = await off_loop(encode_channel, path, channel, limit_s=ENCODE_LIMIT_S)
        except FileNotFoundError:
            return web.Response(status=404)
        except PictureRefused as error:
            log.info("No preview of %s: %s", path, error)
            return web.Response(status=415, text=f"No preview of {name}: {error}.")
        return web.Response(body=body, content_type=content_type, headers={"Content-Disposition": disposition(name)})
