"""A warning for each old script of the page that a pack still imports."""

import logging

from aiohttp import web
from aiohttp.typedefs import Middleware

from middleware.cache_middleware import Handler

log = logging.getLogger(__name__)

_OLD_PREFIXES = ("/scripts/ui", "/extensions/core/")
_MOST_WARNINGS = 200


def make_deprecation_warning() -> Middleware:
    """A middleware that logs one warning per old path; the answer is not changed."""
    warned: set[str] = set()

    @web.middleware
    async def deprecation_warning(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path
        if path.startswith(_OLD_PREFIXES) and path not in warned and len(warned) < _MOST_WARNINGS:
            warned.add(path)
            log.warning("%s is an old script of the page that may go away; a node pack imports it, and its author should know", path)
        return await handler(request)

    return deprecation_warning
