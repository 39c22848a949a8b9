"""``/upload/image`` and ``/upload/mask``: files that the page or a script puts into the input, output or temp folder."""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import IO

from aiohttp import web

import folder_paths
from app.files.off_loop import WRITE_LIMIT_S, off_loop
from app.files.path_guard import UnsafePath
from app.files.stored_file import FileReference
from app.routes.mask_upload import MaskRefused, apply_mask, parse_original
from app.routes.upload_form import UploadForm, read_form
from app.routes.upload_store import StoredUpload, UploadTarget, store_upload

log = logging.getLogger(__name__)

_KINDS = ("input", "temp", "output")
_CONCURRENT_MASKS = 2


@dataclass(frozen=True, slots=True)
class _Upload:
    target: UploadTarget
    kind: str
    overwrite: bool
    content: IO[bytes]
    original: FileReference | None


class UploadRoutes:
    """Stores uploads on worker threads. *hashing_function* (``args.default_hashing_function``) tells equal files apart; *bring* is
    awaited with the original of a mask, which may lie elsewhere, before it is looked for."""

    def __init__(self, hashing_function: str, bring: Callable[[FileReference], Awaitable[None]] | None = None) -> None:
        self.hashing_function = hashing_function
        self._bring = bring
        self._decoding = asyncio.Semaphore(_CONCURRENT_MASKS)

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.post("/upload/image")(self.image)
        routes.post("/upload/mask")(self.mask)

    async def image(self, request: web.Request) -> web.Response:
        """Store the form's file; answers its name, subfolder and type."""
        return await self._answer(request, with_original=False)

    async def mask(self, request: web.Request) -> web.Response:
        """The same with the file's alpha laid over the form's ``original_ref``."""
        return await self._answer(request, with_original=True)

    async def _answer(self, request: web.Request, *, with_original: bool) -> web.Response:
        try:
            upload = await _read_form(request, with_original)
            with upload.content:
                if upload.original is not None and self._bring is not None:
                    await self._bring(upload.original)
                async with self._decoding if with_original else contextlib.nullcontext():
                    stored = await off_loop(self._store, upload, limit_s=WRITE_LIMIT_S)
        except (UnsafePath, MaskRefused) as error:
            return web.Response(status=400, text=f"The upload is refused: {error}.")
        except OSError as error:
            return _disk_refusal(error)
        return web.json_response({"name": stored.name, "subfolder": upload.target.subfolder, "type": upload.kind})

    def _store(self, upload: _Upload) -> StoredUpload:
        content = upload.content
        upload.target.path()
        if upload.original is not None:
            content = apply_mask(upload.original, content)
        return store_upload(upload.target, content, overwrite=upload.overwrite, hashing_function=self.hashing_function)


def _disk_refusal(error: OSError) -> web.Response:
    """The answer when the disk refuses the upload: 4xx where the client is at fault."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return web.Response(status=400, text="The upload is refused: a file is where the subfolder should be.")
    if error.errno == errno.ENAMETOOLONG:
        return web.Response(status=400, text="The upload is refused: the file name is too long.")
    log.error("An upload cannot be stored: %s", error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return web.Response(status=507, text="The upload is not stored: the disk is full.")
    return web.Response(status=500, text="The upload is not stored; the server's log says why.")


async def _read_form(request: web.Request, with_original: bool) -> _Upload:
    """The fields of the form. Raises ``UnsafePath``, ``MaskRefused``, or an ``HTTPException`` for what is no such form."""
    form = await read_form(request)
    if form.image is None:
        raise web.HTTPBadRequest(text="The form has no file named 'image' with a file name.")
    try:
        return _upload_of(form, form.image, with_original)
    except BaseException:
        form.image.close()
        raise


def _upload_of(form: UploadForm, image: IO[bytes], with_original: bool) -> _Upload:
    texts = form.texts
    kind = texts.get("type") or "input"
    root = folder_paths.get_directory_by_type(kind) if kind in _KINDS else None
    if root is None:
        raise web.HTTPBadRequest(text=f"Unknown type {kind!r}: use input, temp or output.")
    if with_original and "original_ref" not in texts:
        raise MaskRefused("the form field original_ref is missing")
    return _Upload(
        target=UploadTarget.of(os.fspath(root), texts.get("subfolder", ""), form.filename),
        kind=kind,
        overwrite=texts.get("overwrite", "").lower() in ("true", "1"),
        content=image,
        original=parse_original(texts["original_ref"]) if with_original else None,
    )
