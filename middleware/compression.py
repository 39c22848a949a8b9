"""Compressed answers, for ``--enable-compress-response-body``."""

from aiohttp import web

from middleware.cache_middleware import Handler

_COMPRESSED_TYPES = frozenset({"application/json", "text/plain"})


@web.middleware
async def compress_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compress JSON and plain text as the client accepts it; files and everything else go as they are."""
    response = await handler(request)
    if isinstance(response, web.Response) and response.content_type in _COMPRESSED_TYPES and response.body:
        response.enable_compression()
    return response
