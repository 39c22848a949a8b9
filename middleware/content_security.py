"""Keeping the page away from other servers, for ``--disable-api-nodes``."""

from aiohttp import web

from middleware.cache_middleware import Handler

_POLICY = (
    "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "connect-src 'self' data:",
            "frame-src 'self'",
            "object-src 'self'",
        )
    )
    + ";"
)


@web.middleware
async def same_origin_content(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell browsers to load and contact nothing but this server; inline and generated content stays possible."""
    response = await handler(request)
    response.headers["Content-Security-Policy"] = _POLICY
    return response
