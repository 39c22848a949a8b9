"""What node packs bring in addition to nodes: translations and example workflows."""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web

import folder_paths
from app.files.json_body import parse_strict
from app.files.off_loop import off_loop
from app.routes.static_folder import StaticFolder
from comfy.units import MIB
from utils.folder_walk import is_folder
from utils.json_util import merge_json_recursive
from utils.regular_files import read_regular

log = logging.getLogger(__name__)

EXAMPLE_FOLDERS = ("example_workflows", "example", "examples", "workflow", "workflows")
_MAX_BYTES = 64 * MIB
_TRANSLATION_SECTIONS = ("nodeDefs", "commands", "settings")


class CustomNodeManager:
    """``/i18n``, ``/workflow_templates`` and the folders of example workflows. Translations are read once, at first use."""

    def __init__(self) -> None:
        self._translations: dict[str, Any] | None = None
        self._example_folders: dict[str, list[str]] = {}

    def build_translations(self) -> dict[str, Any]:
        """``{language: merged object}`` from every pack's ``locales/<language>/``; a later pack wins. Blocks on the disk."""
        translations: dict[str, Any] = {}
        for pack in _pack_folders():
            for language, folder in _subfolders(os.path.join(pack, "locales")):
                content = _read_object(os.path.join(folder, "main.json"))
                for section in _TRANSLATION_SECTIONS:
                    entries = _read_object(os.path.join(folder, f"{section}.json"))
                    if entries:
                        content = merge_json_recursive(content, {section: entries})
                if content:
                    translations[language] = merge_json_recursive(translations.get(language, {}), content)
        return translations

    def list_templates(self) -> dict[str, list[str]]:
        """``{pack: [example workflow names without .json]}``, packs without examples left out. Blocks on the disk."""
        templates: dict[str, list[str]] = {}
        for pack in _pack_folders():
            names = [name[:-5] for folder in EXAMPLE_FOLDERS for name in _file_names(os.path.join(pack, folder)) if name.endswith(".json")]
            if names:
                templates.setdefault(os.path.basename(pack), []).extend(names)
        return templates

    def add_routes(self, routes: web.RouteTableDef, webapp: web.Application, loadedModules: Iterable[tuple[str, str]]) -> None:  # noqa: N803
        """Register the routes in *routes* and mount the example folders of *loadedModules* (name, folder) in *webapp*."""
        routes.get("/i18n")(self._get_translations)
        routes.get("/workflow_templates")(self._get_templates)
        self.add_static(webapp, loadedModules)

    def add_static(self, app: web.Application, loaded_modules: Iterable[tuple[str, str]]) -> None:
        """Mount every example folder of *loaded_modules* at ``/api/workflow_templates/<name>``; call after the packs are loaded."""
        self._example_folders = {name: [os.path.join(folder, examples) for examples in EXAMPLE_FOLDERS] for name, folder in loaded_modules}
        app.router.add_get("/api/workflow_templates/{pack}/{file:.+}", self._get_example)

    async def _get_translations(self, request: web.Request) -> web.Response:
        if self._translations is None:
            self._translations = await off_loop(self.build_translations)
        return web.json_response(self._translations)

    async def _get_templates(self, request: web.Request) -> web.Response:
        return web.json_response(await off_loop(self.list_templates))

    async def _get_example(self, request: web.Request) -> web.StreamResponse:
        answer: web.StreamResponse = web.Response(status=404)
        for folder in self._example_folders.get(request.match_info["pack"], ()):
            answer = await StaticFolder(folder).answer(request.match_info["file"])
            if answer.status != 404:
                break
        return answer


def _pack_folders() -> Iterator[str]:
    for root in folder_paths.get_folder_paths("custom_nodes"):
        yield from (folder for _, folder in _subfolders(os.fspath(root)))


def _subfolders(folder: str) -> list[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.path) for entry in entries if not entry.name.startswith(".") and is_folder(entry))
    except OSError:
        return []


def _file_names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read_object(path: str) -> dict[str, Any]:
    """The JSON object in *path*; ``{}`` if there is none, with a warning if the file is not one."""
    try:
        value = parse_strict(read_regular(path, _MAX_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("The translation file %s is left out: %s", path, error)
        return {}
    if not isinstance(value, dict):
        log.warning("The translation file %s is left out: it must hold an object.", path)
        return {}
    return value
