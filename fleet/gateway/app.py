"""Puts a gateway together: objects, routes, middlewares, and their lifetime."""

import logging
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

import folder_paths
from app.files.body_budget import BODIES, BodyBudget
from app.files.user_folder import prepare_user_folder
from app.frontend_management import FrontendManager, FrontendMissing
from app.routes.assets_disabled import AssetsDisabledRoutes
from app.running.routing import doubled, register
from app.sockets.connection_gate import ConnectionGate
from app.user_manager import DEFAULT_USER, UserManager
from fleet.gateway.client_hub import ClientHub
from fleet.gateway.fleet_events import FleetEvents
from fleet.gateway.histories import Histories
from fleet.gateway.inputs import Inputs
from fleet.gateway.queue_count import QueueCount
from fleet.gateway.routes.files import FileRoutes
from fleet.gateway.routes.jobs import JobsRoutes
from fleet.gateway.routes.node_info import NodeInfoRoutes
from fleet.gateway.routes.page import PageRoutes
from fleet.gateway.routes.prompts import PromptRoutes
from fleet.gateway.routes.queue import QueueRoutes
from fleet.gateway.routes.whole import WholeRoutes
from fleet.gateway.server_features import ServerFeatures
from fleet.gateway.server_list import ServerList
from fleet.gateway.settings import GatewaySettings
from fleet.gateway.submission import Submitting
from fleet.gateway.upstream import ServerSilent, Upstream
from fleet.gateway.v2.assets import AssetRoutes, AssetStore
from fleet.gateway.v2.errors import v2_errors
from fleet.gateway.v2.jobs import JobRoutes as V2JobRoutes
from fleet.interface import Fleet, FleetError, NoServer
from fleet.shared_uploads import SharedUploads
from middleware.stack import build_middlewares

log = logging.getLogger(__name__)


class Gateway:
    """A gateway over *fleet*, which its caller starts before and closes after. One per process: it sets ``folder_paths``."""

    def __init__(self, fleet: Fleet, settings: GatewaySettings) -> None:
        self.settings = settings
        self.fleet = fleet
        self.upstream = Upstream()
        self.servers = ServerList(fleet)
        self.features = ServerFeatures(self.servers, self.upstream, settings.max_upload_bytes)
        self.count = QueueCount(fleet)
        self.histories = Histories(fleet, self.servers, self.upstream)
        self.hub = ClientHub(lambda: self.upstream.session, self.servers, self.count, self.features, self.histories.note)
        self.count.changed = self.hub.broadcast_status
        self.events = FleetEvents(fleet, self.servers, self.hub, self.count)
        self.uploads = SharedUploads(settings.cache_providers)
        self.inputs = Inputs(self.upstream, self.servers, settings.address, self.uploads)
        self.submitting = Submitting(fleet, self.hub, self.inputs, self.count)
        self.gate = ConnectionGate()
        self.files = FileRoutes(self.inputs, self.servers, self.upstream)
        self.assets = AssetStore(settings.directory("assets"))
        client_id = f"gateway-{uuid.uuid4().hex}"
        self.v2_jobs = V2JobRoutes(fleet, self.submitting, self.histories, self.files, self.assets, client_id)

    def make_app(self) -> web.Application:
        """The application; it works from its start to its cleanup."""
        _use_folders(self.settings)
        flags = self.settings.as_server_flags()
        middlewares = [self.gate.middleware, *build_middlewares(flags), fleet_errors, v2_errors]
        app = web.Application(client_max_size=self.settings.max_upload_bytes, middlewares=middlewares)
        app[BODIES] = BodyBudget()
        self._add_routes(app)
        app.cleanup_ctx.append(self._lifetime)
        return app

    def _add_routes(self, app: web.Application) -> None:
        whole = WholeRoutes(self.servers, self.upstream, self.features, self.settings.web_root or installed_page())
        routes, undoubled = web.RouteTableDef(), web.RouteTableDef()
        for part in (
            self.hub,
            PromptRoutes(self.submitting, self.count),
            QueueRoutes(self.fleet, self.histories, self.servers, self.upstream),
            NodeInfoRoutes(self.servers, self.upstream),
            self.files,
            whole,
            UserManager(),
        ):
            part.add_routes(routes)
        JobsRoutes(self.fleet, self.histories).add_routes(undoubled)
        AssetsDisabledRoutes().add_routes(undoubled)
        self.files.add_undoubled(undoubled)
        PageRoutes(self.fleet, self.servers, self.hub, self.upstream).add_undoubled(undoubled)
        self.v2_jobs.add_routes(undoubled)
        AssetRoutes(self.assets, self.files).add_routes(undoubled)
        whole.add_undoubled(undoubled)
        for table in (undoubled, doubled(routes), routes):
            register(app, table)
        whole.add_last(app)

    async def _lifetime(self, app: web.Application) -> AsyncIterator[None]:
        await self.servers.refresh()
        await self.features.refresh()
        self.events.start()
        self.count.ask_soon()
        async with asynccontextmanager(self.v2_jobs.lifetime)(self.upstream.session, self.servers):
            yield
        await self.events.close()
        await self.hub.close()
        await self.hub.close_links()
        await self.count.close()
        await self.uploads.close()
        await self.upstream.close()


@web.middleware
async def fleet_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of the fleet that no route answers itself: 503 while no server is up, 502 for one that cannot be asked."""
    try:
        return await handler(request)
    except NoServer as error:
        raise web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}) from None
    except (FleetError, ServerSilent) as error:
        log.warning("%s %s: %s", request.method, request.path, error)
        raise web.HTTPBadGateway(text=str(error)) from None


def installed_page() -> str | None:
    """The folder of the installed page, None without one."""
    try:
        return FrontendManager.default_frontend_path()
    except FrontendMissing:
        return None


def _use_folders(settings: GatewaySettings) -> None:
    for name, use in (
        ("input", folder_paths.set_input_directory),
        ("temp", folder_paths.set_temp_directory),
        ("output", folder_paths.set_output_directory),
        ("user", folder_paths.set_user_directory),
    ):
        os.makedirs(settings.directory(name), exist_ok=True)
        use(settings.directory(name))
    prepare_user_folder(os.path.join(folder_paths.get_user_directory(), DEFAULT_USER))
