"""Which subsystems make up the server, and how their routes are put into the application."""

import argparse
import logging
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

import execution
import folder_paths
import nodes
from app.custom_node_manager import CustomNodeManager
from app.frontend_management import FrontendManager, FrontendMissing
from app.model_manager import ModelFileManager
from app.node_replace_manager import NodeReplaceManager
from app.routes.assets_disabled import AssetsDisabledRoutes
from app.routes.cache_summary import CacheSummary
from app.routes.caches import CacheSections
from app.routes.extension_list import ExtensionRoutes
from app.routes.frontend_static import FrontendRoutes
from app.routes.internal import InternalRoutes
from app.routes.jobs import JobsRoutes
from app.routes.models import ModelRoutes
from app.routes.object_info import ObjectInfoRoutes
from app.routes.prompts import PromptRoutes, PromptTaker
from app.routes.queue import QueueRoutes
from app.routes.system_stats import SystemRoutes
from app.routes.template_assets import embedded_docs_folder, template_assets
from app.routes.upload import UploadRoutes
from app.routes.view import ViewRoutes
from app.running.routing import doubled, register
from app.subgraph_manager import SubgraphManager
from app.user_manager import UserManager
from comfy import model_management

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subsystems:
    """The parts that packs reach by name on the ``PromptServer``, and the page's folder (None when it is not installed)."""

    user_manager: UserManager
    model_file_manager: ModelFileManager
    custom_node_manager: CustomNodeManager
    subgraph_manager: SubgraphManager
    node_replace_manager: NodeReplaceManager
    internal_routes: InternalRoutes
    web_root: str | None
    missing_page: str


class ComposedServer(PromptTaker, Protocol):
    """What the parts of the server need of the ``PromptServer`` that they are parts of."""

    sockets: dict[str, web.WebSocketResponse]
    web_root: str | None
    subsystems: Subsystems
    cache_sections: CacheSections
    cache_summary: CacheSummary

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Queue a message to client *sid*, or to all. Any thread; never blocks."""


def build_subsystems(server: ComposedServer, args: argparse.Namespace) -> Subsystems:
    """Build the parts that exist from the start; *server* is the ``PromptServer`` under construction."""
    web_root, missing_page = find_page(args)
    blueprints = str(pathlib.Path(__file__).resolve().parents[2] / "blueprints")
    return Subsystems(
        user_manager=UserManager(),
        model_file_manager=ModelFileManager(),
        custom_node_manager=CustomNodeManager(),
        subgraph_manager=SubgraphManager(blueprints),
        node_replace_manager=NodeReplaceManager(),
        internal_routes=InternalRoutes(lambda *message: server.send_sync(*message), lambda client_id: client_id in server.sockets),
        web_root=web_root,
        missing_page=missing_page,
    )


def find_page(args: argparse.Namespace) -> tuple[str | None, str]:
    """The folder of the web page and "", or None and what to tell people who open it."""
    if args.front_end_root:
        return args.front_end_root, ""
    try:
        return FrontendManager.init_frontend(args.front_end_version), ""
    except FrontendMissing as error:
        log.error("%s", error)
        return None, str(error)


def add_core_routes(
    server: ComposedServer, routes: web.RouteTableDef, args: argparse.Namespace, torch_is_imported: Callable[[], bool]
) -> None:
    """Put the core routes into the table that packs add theirs to, so that core paths come first."""
    for part in (
        PromptRoutes(server, lambda: execution),
        QueueRoutes(server),
        ObjectInfoRoutes(lambda: nodes.NODE_CLASS_MAPPINGS, folder_paths.cache_helper),
        SystemRoutes(model_management.names(), torch_is_imported),
        server.cache_sections,
        server.cache_summary,
        ModelRoutes(),
        ExtensionRoutes(server.web_root, nodes.EXTENSION_WEB_DIRS),
        UploadRoutes(args.default_hashing_function),
        ViewRoutes(),
        FrontendRoutes(server.web_root, missing_message=server.subsystems.missing_page),
    ):
        part.add_routes(routes)


def let_packs_be_undone(server: ComposedServer, app: web.Application, routes: web.RouteTableDef) -> None:
    """Have what a pack changes of *server* while it loads taken back if it fails."""
    nodes.pack_loader.server_objects = lambda: (server, routes, app, app.router, server.cache_sections, server.node_replace_manager)


def add_late_routes(server: ComposedServer, app: web.Application, routes: web.RouteTableDef) -> None:
    """Put everything into *app*: the table (each path also under ``/api``), the undoubled parts and the files of the page, last."""
    parts = server.subsystems
    loaded = list(nodes.LOADED_MODULE_DIRS.items())
    for part in (parts.user_manager, parts.model_file_manager, parts.node_replace_manager):
        part.add_routes(routes)
    parts.custom_node_manager.add_routes(routes, app, loaded)
    parts.subgraph_manager.add_routes(routes, loaded)
    undoubled = web.RouteTableDef()
    JobsRoutes(server).add_routes(undoubled)
    AssetsDisabledRoutes().add_routes(undoubled)
    app.add_subapp("/internal", parts.internal_routes.get_app())
    register(app, undoubled)
    register(app, doubled(routes))
    register(app, routes)
    ExtensionRoutes(server.web_root, nodes.EXTENSION_WEB_DIRS).add_static(app)
    FrontendRoutes(server.web_root, template_assets(), embedded_docs_folder()).add_static(app)
