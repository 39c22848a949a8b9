"""Serving the files of a folder, with every name checked first.

aiohttp's own static resource answers 500 to names that are too long and misses prefixes with spaces; hence this one.
"""

import os

from aiohttp import web

from app.files.off_loop import off_loop
from app.files.path_guard import UnsafePath, contained_path

# What a system's own table of types may have wrong (Windows keeps it in the registry), and browsers insist on.
_WEB_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


class StaticFolder:
    """The files below *root*. Links that lead out of it are not followed; folders are not listed."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find(self, name: str) -> str | None:
        """The path of the file *name* (relative, with ``/``), or None. Touches the disk. Raises ``UnsafePath``."""
        path = contained_path(self.root, name)
        return path if os.path.isfile(path) else None

    async def answer(self, name: str) -> web.StreamResponse:
        """The file *name* with validators and ranges; 404 without one, 400 or 403 for impossible names."""
        try:
            path = await off_loop(self.find, name)
        except UnsafePath as error:
            return web.Response(status=error.status)
        return web.Response(status=404) if path is None else file_answer(path)


def file_answer(path: str) -> web.FileResponse:
    """The file at *path* as one that belongs to the page: shown and run by the browser as its name says."""
    content_type = _WEB_TYPES.get(os.path.splitext(path)[1].lower())
    return web.FileResponse(path, headers={"Content-Type": content_type} if content_type else None)
