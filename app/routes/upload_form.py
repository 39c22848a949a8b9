"""Reading the form of an upload: a few parts, the file into a temporary file, everything within limits."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from typing import IO

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from app.files.off_loop import WRITE_LIMIT_S, off_loop
from comfy.units import MIB

MAX_PARTS = 64
MAX_TEXT_BYTES = MIB
FORM_LIMIT_S = 3600.0
_CHUNK_BYTES = 256 * 1024
_PLAIN_ENCODINGS = frozenset({"", "binary", "7bit", "8bit"})


@dataclass(frozen=True, slots=True)
class UploadForm:
    """The text fields, and the file with the name its sender gave it; None where there is none. The last two may be missing. Whoever has
    the form closes ``image``."""

    texts: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    image: IO[bytes] | None = None


async def read_form(request: web.Request, file_part: str = "image") -> UploadForm:
    """The form in *request*'s body, with the file of the part called *file_part*.

    Raises ``HTTPBadRequest`` for what is not one, ``HTTPRequestEntityTooLarge`` for too much of it and ``HTTPRequestTimeout`` for one
    that does not end.
    """
    if request.content_type != "multipart/form-data":
        raise web.HTTPBadRequest(text="The body is not a form with a file: send it as multipart/form-data.")
    try:
        async with asyncio.timeout(FORM_LIMIT_S):
            return await _read_parts(request, file_part)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"The form did not arrive within {FORM_LIMIT_S:.0f} s.") from None
    except (ValueError, LookupError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise web.HTTPBadRequest(text=f"The body is not a valid form: {error}") from None


async def _read_parts(request: web.Request, file_part: str) -> UploadForm:
    reader, texts, filename, image = await request.multipart(), dict[str, str](), "", None
    left_bytes = request.client_max_size or (1 << 62)
    try:
        for _ in range(MAX_PARTS + 1):
            part = await reader.next()
            if part is None:
                return UploadForm(texts, filename, image)
            if not isinstance(part, aiohttp.BodyPartReader):
                raise ValueError("a form inside a form")
            _check_encoding(part)
            if part.name == file_part and part.filename and image is None:
                filename, image = part.filename, await _into_file(part, left_bytes)
                left_bytes -= image.tell()
            else:
                text = await _into_memory(part, min(left_bytes, MAX_TEXT_BYTES))
                left_bytes -= len(text)
                texts.setdefault(part.name or "", text.decode(part.get_charset("utf-8")))
        raise web.HTTPRequestEntityTooLarge(MAX_PARTS, text=f"The form has more than {MAX_PARTS} parts.")
    except BaseException:
        if image is not None:
            image.close()
        raise


def _check_encoding(part: aiohttp.BodyPartReader) -> None:
    encoding = part.headers.get("Content-Transfer-Encoding", "").strip().lower()
    if encoding not in _PLAIN_ENCODINGS or part.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ValueError("an encoded part; send the bytes as they are")


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile("w+b")


async def _into_file(part: aiohttp.BodyPartReader, max_bytes: int) -> IO[bytes]:
    file: IO[bytes] = await off_loop(_temporary_file)
    try:
        while chunk := await part.read_chunk(_CHUNK_BYTES):
            if file.tell() + len(chunk) > max_bytes:
                raise web.HTTPRequestEntityTooLarge(max_bytes)
            await off_loop(file.write, chunk, limit_s=WRITE_LIMIT_S)
        return file
    except BaseException:
        file.close()
        raise


async def _into_memory(part: aiohttp.BodyPartReader, max_bytes: int) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise web.HTTPRequestEntityTooLarge(max_bytes, text=f"A text field of the form has more than {max_bytes} bytes.")
    return bytes(content)
