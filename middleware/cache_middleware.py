"""How long browsers may keep answers, by the name that was asked for."""

from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ONE_HOUR = 3600
ONE_DAY = 86400
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_KEEP_A_DAY = frozenset({200, 201, 202, 203, 204, 205, 206, 301, 308})
_PASSING_REDIRECTS = frozenset({302, 303, 307})


def _cache_rule(path: str, status: int) -> str | None:
    """The ``Cache-Control`` value for an answer to *path*, None to say nothing."""
    path = path.lower()
    name = path.rpartition("/")[2]
    if name.endswith((".js", ".css")) or (name.startswith("index") and name.endswith(".json")):
        return "no-store"
    if not name.endswith(IMG_EXTENSIONS):
        return None
    if status == 404:
        return f"public, max-age={ONE_HOUR}"
    if status in _KEEP_A_DAY:
        return f"public, max-age={ONE_DAY}"
    return "no-cache" if status in _PASSING_REDIRECTS else None


@web.middleware
async def cache_control(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add ``Cache-Control`` unless the handler set one: scripts and index files are never kept, images are for a day."""
    response = await handler(request)
    rule = _cache_rule(request.path, response.status)
    if rule is not None:
        response.headers.setdefault("Cache-Control", rule)
    return response
