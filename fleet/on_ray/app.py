"""The Serve application, for ``python -m fleet up`` and for a Serve config file (``import_path: fleet.on_ray.app:build``)."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.deployment import Application

from fleet.fleet_size import SizeLimits
from fleet.on_ray.deployments import DISPATCHER, DispatcherReplica, GatewayReplica, ServerReplica
from fleet.on_ray.scaling import SERVERS

GATEWAYS = "Gateways"
MANY = 10_000


class FleetArguments(BaseModel):
    """The ``args`` of a config file. *flags* go to every server; *gateways* share *port*; *gpus_per_server* 0: servers on the CPU.

    With *most_servers* above *servers* their number follows the jobs, between the two, as :class:`fleet.fleet_size.SizeLimits` says.

    *rays_own_router*: Ray Serve's default in place of the fleet's, with so many jobs per server; to compare them.
    """

    model_config = ConfigDict(extra="forbid")

    servers: int = 1
    most_servers: int = 0
    jobs_per_server: float = 2.0
    grow_after_s: float = 10.0
    shrink_after_s: float = 300.0
    gateways: int = 1
    flags: list[str] = []
    folder: str = "user/fleet"
    listen: str = "127.0.0.1"
    port: int = 8188
    gpus_per_server: float = 0.0
    cpus_per_server: float = 1.0
    most_per_server: int = 100
    own_folders: bool = True
    environment: dict[str, str] = {}
    allowed_hosts: list[str] = []
    rays_own_router: int = 0

    def limits(self) -> SizeLimits | None:
        """Between which numbers of servers the jobs decide; None where they do not."""
        if self.most_servers <= self.servers:
            return None
        return SizeLimits(self.servers, self.most_servers, self.jobs_per_server, self.grow_after_s, self.shrink_after_s)


def build(arguments: FleetArguments) -> Application:
    """The application."""
    folder = str(Path(arguments.folder).resolve())
    ours = RequestRouterConfig(request_router_class="fleet.on_ray.fleet_router.FleetRouter")
    servers = serve.deployment(
        ServerReplica,
        name=SERVERS,
        num_replicas=arguments.servers,
        max_ongoing_requests=arguments.rays_own_router or arguments.most_per_server + 10,
        ray_actor_options={"num_cpus": arguments.cpus_per_server, "num_gpus": arguments.gpus_per_server},
        request_router_config=RequestRouterConfig() if arguments.rays_own_router else ours,
        health_check_period_s=1.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=60.0,
    ).bind(arguments.flags, folder, arguments.own_folders, arguments.environment)
    dispatcher = serve.deployment(
        DispatcherReplica,
        name=DISPATCHER,
        num_replicas=1,
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=1.0,
        graceful_shutdown_timeout_s=5.0,
    ).bind(servers, arguments.most_per_server, arguments.limits())
    if not arguments.gateways:
        return dispatcher
    return serve.deployment(
        GatewayReplica,
        name=GATEWAYS,
        num_replicas=arguments.gateways,
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=1.0,
        graceful_shutdown_timeout_s=5.0,
    ).bind(dispatcher, arguments.model_copy(update={"servers": 0}))  # another number must not restart them
