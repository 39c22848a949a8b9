"""``/models``, ``/embeddings`` and ``/view_metadata``: the names of model files and what their headers say."""

import os
from typing import Any

from aiohttp import web

import folder_paths
from app.files.off_loop import off_loop
from app.files.path_guard import UnsafePath, check_relative_name
from app.files.safetensors_header import read_metadata
from comfy.units import MIB

_MAX_HEADER_BYTES = MIB


class ModelRoutes:
    """Lists model files by folder key; the disk is read on worker threads."""

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/embeddings")(self._embeddings)
        routes.get("/models")(self._folders)
        routes.get("/models/{folder}")(self._files)
        routes.get("/view_metadata/{folder_name}")(self._metadata)

    async def _embeddings(self, request: web.Request) -> web.Response:
        names = await off_loop(folder_paths.get_filename_list, "embeddings")
        return web.json_response([os.path.splitext(name)[0] for name in names])

    async def _folders(self, request: web.Request) -> web.Response:
        return web.json_response(list(folder_paths.folder_names_and_paths))

    async def _files(self, request: web.Request) -> web.Response:
        folder = folder_paths.map_legacy(request.match_info["folder"])
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        return web.json_response(await off_loop(folder_paths.get_filename_list, folder))

    async def _metadata(self, request: web.Request) -> web.Response:
        folder = folder_paths.map_legacy(request.match_info["folder_name"])
        filename = request.query.get("filename", "")
        if folder not in folder_paths.folder_names_and_paths or not filename.endswith(".safetensors"):
            return web.Response(status=404)
        try:
            check_relative_name(filename)
        except UnsafePath as error:
            return web.Response(status=error.status, text=str(error))
        metadata = await off_loop(_metadata_of, folder, filename)
        if metadata is None:
            return web.Response(status=404)
        return web.json_response(metadata)


def _metadata_of(folder: str, filename: str) -> dict[str, Any] | None:
    path = folder_paths.get_full_path(folder, filename)
    if path is None:
        return None
    try:
        return read_metadata(path, _MAX_HEADER_BYTES)
    except OSError:
        return None
