"""The model library of the page: ``/experiment/models`` with details and previews."""

import io
import os
from typing import Any

from aiohttp import web

import folder_paths
from app.files.model_files import list_model_files
from app.files.model_preview import PreviewEscapes, encode_model_preview, find_previews
from app.files.off_loop import off_loop
from app.files.path_guard import UnsafePath, check_relative_name

_NOT_MODELS = ("configs", "custom_nodes")


class ModelFileManager:
    """Lists model folders and files and shows previews; the disk is read on worker threads."""

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/experiment/models")(self._folders)
        routes.get("/experiment/models/{folder}")(self._files)
        routes.get("/experiment/models/preview/{folder}/{path_index}/{filename:.*}")(self._preview)

    def get_model_file_list(self, folder_name: str) -> list[dict[str, Any]]:
        """``[{name, pathIndex, modified, created, size}]`` of every model file of the folder key. Blocks; raises ``KeyError``."""
        return list_model_files(folder_name)

    def get_model_previews(self, filepath: str) -> list[str | io.BytesIO]:
        """Previews of the model at *filepath*, best first: paths of images beside it, then covers from its metadata. Blocks."""
        return find_previews(filepath)

    async def _folders(self, request: web.Request) -> web.Response:
        return web.json_response(
            [
                {"name": name, "folders": [str(path) for path in paths], "extensions": sorted(extensions or ())}
                for name, (paths, extensions) in folder_paths.folder_names_and_paths.items()
                if name not in _NOT_MODELS
            ]
        )

    async def _files(self, request: web.Request) -> web.Response:
        folder = folder_paths.map_legacy(request.match_info["folder"])
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        return web.json_response(await off_loop(list_model_files, folder))

    async def _preview(self, request: web.Request) -> web.Response:
        folder = folder_paths.map_legacy(request.match_info["folder"])
        filename, index = request.match_info["filename"], request.match_info["path_index"]
        if folder not in folder_paths.folder_names_and_paths:
            return web.Response(status=404)
        if not filename or not (index.isascii() and index.isdigit() and len(index) < 10):
            return web.Response(status=400)
        directories = folder_paths.folder_names_and_paths[folder][0]
        if int(index) >= len(directories):
            return web.Response(status=404)
        root = str(directories[int(index)])
        try:
            check_relative_name(filename)
            body = await off_loop(encode_model_preview, root, os.path.normpath(os.path.join(root, filename)))
        except UnsafePath as error:
            return web.Response(status=error.status)
        except PreviewEscapes:
            return web.Response(status=403)
        if body is None:
            return web.Response(status=404)
        return web.Response(body=body, content_type="image/webp")
