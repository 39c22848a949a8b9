"""Ready-made subgraphs that node packs and this server's ``blueprints`` folder offer to the page."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

import folder_paths
from app.files.off_loop import off_loop
from comfy.units import MIB
from utils.regular_files import read_regular

_MAX_BYTES = 64 * MIB
FROM_PACK = "custom_node"
FROM_SERVER = "templates"


@dataclass(frozen=True, slots=True)
class Subgraph:
    """One subgraph file: where it comes from (``custom_node`` or ``templates``), its path with ``/``, and its pack."""

    source: str
    path: str
    node_pack: str

    @property
    def id(self) -> str:
        """A stable name: SHA-256 over source and path."""
        return hashlib.sha256(f"{self.source}{self.path}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """The entry that the page reads."""
        name = os.path.splitext(os.path.basename(self.path))[0]
        return {"source": self.source, "name": name, "info": {"node_pack": self.node_pack}}


class SubgraphManager:
    """``/global_subgraphs``. The list of files is made at first use and kept."""

    def __init__(self, blueprints_folder: str | None = None) -> None:
        self.blueprints_folder = blueprints_folder
        self._found: dict[str, Subgraph] | None = None

    def find(self) -> dict[str, Subgraph]:
        """All subgraphs by id, the packs' first. Blocks on the disk."""
        found: list[Subgraph] = []
        for root in folder_paths.get_folder_paths("custom_nodes"):
            for pack in _names(root):
                folder = os.path.join(root, pack, "subgraphs")
                found += [Subgraph(FROM_PACK, path, f"custom_nodes.{pack}") for path in _json_files(folder)]
        if self.blueprints_folder is not None:
            found += [Subgraph(FROM_SERVER, path, "comfyui") for path in _json_files(self.blueprints_folder)]
        return {subgraph.id: subgraph for subgraph in found}

    def add_routes(self, routes: web.RouteTableDef, loadedModules: Iterable[tuple[str, str]] = ()) -> None:  # noqa: N803
        """Register the routes. *loadedModules* is accepted for callers that pass it; the pack folders are read directly."""
        routes.get("/global_subgraphs")(self._list)
        routes.get("/global_subgraphs/{id}")(self._get)

    async def _subgraphs(self) -> dict[str, Subgraph]:
        if self._found is None:
            self._found = await off_loop(self.find)
        return self._found

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({key: subgraph.describe() for key, subgraph in (await self._subgraphs()).items()})

    async def _get(self, request: web.Request) -> web.Response:
        subgraph = (await self._subgraphs()).get(request.match_info["id"])
        if subgraph is None:
            return web.json_response(None)
        try:
            data = await off_loop(_read_text, subgraph.path)
        except (OSError, UnicodeDecodeError) as error:
            return web.json_response({"error": f"The subgraph cannot be read: {error.__class__.__name__}"}, status=404)
        return web.json_response({**subgraph.describe(), "data": data})


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _json_files(folder: str) -> list[str]:
    return [os.path.join(folder, name).replace(os.sep, "/") for name in _names(folder) if name.endswith(".json") and name[0] != "."]


def _read_text(path: str) -> str:
    return read_regular(path, _MAX_BYTES).decode("utf-8")
