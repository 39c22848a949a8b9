"""Compressed request bodies: taken off the loop, with a limit before and after, and refused as what they are when they are broken."""

import asyncio
import importlib
import importlib.util
import zlib
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.typedefs import Middleware

from app.files.body_budget import bodies_of
from app.files.off_loop import off_loop
from middleware.cache_middleware import Handler

_CONCURRENT = 2
_CHUNK_BYTES = 1 << 20


class BrokenBody(ValueError):
    """The bytes are not what their encoding says."""


class BodyTooLarge(ValueError):
    """There is more behind the compression than is taken."""


def unpack(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """*body* without its *encoding*: ``gzip``, ``deflate`` or ``br``. Takes CPU time and never more than *max_bytes* and a piece.

    Raises :class:`BrokenBody` and :class:`BodyTooLarge`, and ``LookupError`` for an encoding that is not known here.
    """
    try:
        return {"gzip": _unzip, "x-gzip": _unzip, "deflate": _inflate, "br": _unbrotli}[encoding](body, max_bytes)
    except zlib.error as error:
        raise BrokenBody(str(error)) from None


def make_compressed_bodies() -> Middleware:
    """A middleware that puts the plain body in place of a compressed one. The server must not unpack bodies by itself
    (``auto_decompress=False``), for it does so on the loop."""
    slots = asyncio.Semaphore(_CONCURRENT)

    @web.middleware
    async def compressed_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity"):
            return await handler(request)
        max_bytes = request.client_max_size or (1 << 40)
        with bodies_of(request).share() as share:
            plain = await _plain(await share.read(request), encoding, max_bytes)
            share.take(len(plain))
            _replace_body(request, plain)
            return await handler(request)

    async def _plain(body: bytes, encoding: str, max_bytes: int) -> bytes:
        try:
            async with slots:
                return await off_loop(unpack, body, encoding, max_bytes)
        except LookupError:
            raise web.HTTPUnsupportedMediaType(text=f"Bodies encoded as {encoding[:40]!r} are not read; gzip and deflate are.") from None
        except BodyTooLarge:
            raise web.HTTPRequestEntityTooLarge(max_bytes, text=f"The body unpacks to more than {max_bytes} bytes.") from None
        except BrokenBody as error:
            raise web.HTTPBadRequest(text=f"The body is not valid {encoding}: {error}") from None

    return compressed_bodies


def _replace_body(request: web.Request, plain: bytes) -> None:
    """Let every way to read the body, forms included, see *plain*."""
    # So large a limit that the connection is not paused: nobody might ever resume it.
    payload = StreamReader(request.protocol, len(plain) + 1, loop=asyncio.get_running_loop())
    payload.feed_data(plain)
    payload.feed_eof()
    request._payload = payload
    request._read_bytes = plain


def _unzip(body: bytes, max_bytes: int) -> bytes:
    plain = bytearray()
    while True:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        body = _pump(unpacker, body, plain, max_bytes)
        if not body.strip(b"\0"):
            return bytes(plain)


def _inflate(body: bytes, max_bytes: int) -> bytes:
    # Some clients leave the wrapper off that the name stands for.
    wrapped = bool(body) and body[0] & 0x0F == 8
    plain = bytearray()
    _pump(zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS), body, plain, max_bytes)
    return bytes(plain)


def _pump(unpacker: Any, body: bytes, plain: bytearray, max_bytes: int) -> bytes:
    """Add to *plain* what *unpacker* makes of *body*; returns what lies behind its end."""
    rest = body
    while not unpacker.eof:
        piece = unpacker.decompress(rest, _CHUNK_BYTES)
        _add(plain, piece, max_bytes)
        rest = unpacker.unconsumed_tail
        if not piece and not rest and not unpacker.eof:
            raise BrokenBody("it ends too early")
    return unpacker.unused_data


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    if importlib.util.find_spec("brotli") is None:
        raise LookupError("br")
    brotli = importlib.import_module("brotli")
    unpacker, plain, rest = brotli.Decompressor(), bytearray(), body
    step: Callable[..., bytes] = getattr(unpacker, "decompress", unpacker.process)
    if not hasattr(unpacker, "can_accept_more_data"):  # releases that cannot be told where to stop
        raise LookupError("br")
    try:
        while not unpacker.is_finished():
            piece = step(rest, output_buffer_limit=_CHUNK_BYTES)
            _add(plain, piece, max_bytes)
            rest = b""
            if not piece and unpacker.can_accept_more_data():
                raise BrokenBody("it ends too early")
    except brotli.error as error:
        raise BrokenBody(str(error) or "damaged") from None
    return bytes(plain)


def _add(plain: bytearray, piece: bytes, max_bytes: int) -> None:
    if len(plain) + len(piece) > max_bytes:
        raise BodyTooLarge
    plain += piece
