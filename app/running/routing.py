"""Putting tables of routes into an application."""

import logging
from collections.abc import Iterable

from aiohttp import web

log = logging.getLogger(__name__)


def doubled(routes: Iterable[web.AbstractRouteDef]) -> list[web.RouteDef]:
    """The routes once more under ``/api``, without the names that only one route can have; folders are not doubled."""
    return [
        web.RouteDef(route.method, "/api" + route.path, route.handler, {key: value for key, value in route.kwargs.items() if key != "name"})
        for route in routes
        if isinstance(route, web.RouteDef)
    ]


def register(app: web.Application, routes: Iterable[web.AbstractRouteDef]) -> None:
    """Add each route; one that cannot be added (a pack's second claim on a path, say) is logged and left out."""
    for route in routes:
        try:
            app.add_routes([route])
        except (RuntimeError, ValueError) as error:
            log.error("A route cannot be added: %r: %s", route, error)
