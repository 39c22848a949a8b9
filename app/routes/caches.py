"""``GET /caches``: what every cache of this process holds and did, a section each."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from app.files.off_loop import off_loop

log = logging.getLogger(__name__)

Describe = Callable[[], Any]


class CacheSections:
    """The sections by name. Whoever owns a cache adds one: ``PromptServer.instance.cache_sections.add("name", describe)``."""

    def __init__(self) -> None:
        self._sections: dict[str, Describe] = {}

    def add(self, name: str, describe: Describe) -> None:
        """Show what ``describe()`` gives, JSON data, under *name*. It is called on a worker thread at each request."""
        self._sections[name] = describe

    def read(self) -> dict[str, Any]:
        """All sections now; one that fails says so. Blocks as long as they do."""
        return {name: _read(name, describe) for name, describe in self._sections.items()}

    def section(self, name: str) -> Any:
        """The section *name* now, None when nobody has added it. Blocks as long as it does."""
        describe = self._sections.get(name)
        return None if describe is None else _read(name, describe)

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Put ``GET /caches`` into the table."""

        async def caches(request: web.Request) -> web.Response:
            return web.json_response(await off_loop(self.read))

        routes.get("/caches")(caches)


def describe_results(executor: Any) -> dict[str, Any]:
    """The section of node results: the cache in this process and the providers."""
    return {
        "mode": executor.caches.cache_type.name.lower(),
        "local": dataclasses.asdict(executor.caches.outputs.stats()),
        "providers": [dataclasses.asdict(stats) for stats in executor.providers.stats()],
    }


def describe_models(cache: Any) -> dict[str, Any]:
    """The section of models kept in RAM: figures, and every model."""
    stats = cache.stats()
    return {"enabled": cache.enabled, "stats": None if stats is None else dataclasses.asdict(stats), "entries": cache.entries()}


def _read(name: str, describe: Describe) -> Any:
    try:
        return describe()
    except Exception as error:
        log.warning("The cache section %r cannot be read", name, exc_info=True)
        return {"error": f"{type(error).__name__}: {error}"}
