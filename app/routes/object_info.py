"""``/object_info``: every node that can be used, described anew for each request."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from aiohttp import web

from app.files.off_loop import off_loop
from app.files.strict_json import dumps, json_answer
from app.packs.node_info import node_info

# Packs may look at the network or at many folders when they describe their nodes for the first time.
DESCRIBE_LIMIT_S = 300.0

log = logging.getLogger(__name__)


class ObjectInfoRoutes:
    """Describes the classes of *node_classes* (``nodes.NODE_CLASS_MAPPINGS``) on a worker thread.

    *shared_listings* gives a context in which each folder is listed once (``folder_paths.cache_helper``).
    """

    def __init__(self, node_classes: Callable[[], Mapping[str, type]], shared_listings: AbstractContextManager[Any]) -> None:
        self._node_classes = node_classes
        self._shared_listings = shared_listings

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/object_info")(self._all)
        routes.get("/object_info/{node_class}")(self._one)

    def describe_all(self) -> str:
        """All nodes as one JSON object; one that cannot be described is left out and logged. Blocks."""
        described = []
        with self._shared_listings:
            for class_type, node_class in list(self._node_classes().items()):
                try:
                    described.append(f"{json.dumps(class_type)}:{describe(class_type, node_class)}")
                except BaseException:
                    log.exception("The node %s cannot be described and is not offered", class_type)
        return "{" + ",".join(described) + "}"

    async def _all(self, request: web.Request) -> web.Response:
        return web.json_response(text=await off_loop(self.describe_all, limit_s=DESCRIBE_LIMIT_S))

    async def _one(self, request: web.Request) -> web.Response:
        class_type = request.match_info["node_class"]
        node_class = self._node_classes().get(class_type)
        if node_class is None:
            return json_answer({})
        text = await off_loop(describe, class_type, node_class, limit_s=DESCRIBE_LIMIT_S)
        return web.json_response(text=f"{{{json.dumps(class_type)}:{text}}}")


def describe(class_type: str, node_class: type) -> str:
    """One node as JSON; endless bounds become the largest number. Raises what the node raises, and ``TypeError`` for contents that
    JSON cannot hold."""
    return dumps(node_info(class_type, node_class), clamp_infinity=True, unknown=None)
