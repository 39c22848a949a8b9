"""The deployments of the fleet: servers, the dispatcher that decides for them, and gateways that people and programs talk to."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from app.running.started_prompts import read_started
from fleet.dispatcher import Dispatcher, DispatchSettings
from fleet.fleet_size import FleetSize, SizeLimits
from fleet.interface import FleetError
from fleet.messages import Reply, SentJob, ServerReport
from fleet.on_ray.placement import placement
from fleet.on_ray.remote_fleet import RemoteFleet, directly
from fleet.on_ray.replica_port import keep_to_own_address
from fleet.on_ray.scaling import APPLICATION, Scaling
from fleet.replica import Replica
from fleet.shared_uploads import places_in
from fleet.supervisor import ServerPlan

log = logging.getLogger(__name__)

DISPATCHER = "Dispatcher"
# How long a dead replica's server may take to die, and a worker on its node to read the file that it left.
DEATH_PATIENCE_S = 5.0
READ_PATIENCE_S = 20.0
FLEET_CALLS = frozenset(
    {"submit", "find", "jobs", "history", "note_end", "histories", "forget", "cancel", "interrupt_all", "servers", "decisions", "events"}
)


class ServerReplica:
    """A replica: supervises one server, with *flags* of ``main.py``, below *folder*.

    With *own_folders* it has folders for input, output and users' settings of its own. The environment variable ``FLEET_BASE_DIRECTORY``,
    as ``ray start`` was given it on a node, says where the servers of that node have their models.
    """

    async def __init__(self, flags: list[str], folder: str, own_folders: bool, environment: Mapping[str, str]) -> None:  # type: ignore[misc]
        keep_to_own_address()
        context, runtime = serve.get_replica_context(), ray.get_runtime_context()
        server_id, node_id = context.replica_id.unique_id, runtime.get_node_id()
        own = Path(folder) / server_id
        base = os.environ.get("FLEET_BASE_DIRECTORY", "")
        more = ["--base-directory", base] if base else []
        if own_folders:
            more += _own_folders(own)
        plan = ServerPlan((*flags, *more), own, ray.util.get_node_ip_address(), dict(environment))
        devices = ",".join(str(one) for one in ray.get_gpu_ids())
        self._dispatcher: DeploymentHandle | None = None
        self._replica = Replica(server_id, node_id, plan, self._report, f"GPU {devices}" if devices else "CPU")
        await self._replica.start()

    async def run(self, sent: SentJob) -> AsyncIterator[Reply]:
        """The replies to *sent*, as ``Replica.run`` gives them."""
        async for reply in self._replica.run(sent):
            yield reply

    async def check_health(self) -> None:
        """Whoever answers is well: a server that died is being started again."""

    async def _report(self, report: ServerReport) -> None:
        if self._dispatcher is None:
            self._dispatcher = directly(serve.get_deployment_handle(DISPATCHER, APPLICATION))
        await self._dispatcher.report.remote(report)

    async def __del__(self) -> None:
        await self._replica.stop()


class DispatcherReplica:
    """The one dispatcher."""

    async def __init__(  # type: ignore[misc]
        self, servers: DeploymentHandle, most_per_server: int, limits: SizeLimits | None = None
    ) -> None:
        keep_to_own_address()
        self._servers = servers.options(stream=True)
        self._dispatcher = Dispatcher(self, _begun, DispatchSettings(most_per_server))
        placement.use(self._dispatcher.place, asyncio.get_running_loop())
        self._scaling = Scaling(self, None if limits is None else FleetSize(limits))
        self._scaling.start()

    async def send(self, sent: SentJob) -> AsyncIterator[Reply]:
        """Carry *sent* to the replica that ``FleetRouter`` chooses."""
        async for reply in self._servers.run.remote(sent):
            yield reply

    async def report(self, report: ServerReport) -> None:
        """Hear of a server."""
        await self._dispatcher.servers_known.take(report)

    async def drain(self, server_id: str) -> bool:
        """Send no more jobs to a server; whether it has none any more."""
        return self._dispatcher.servers_known.drain(server_id)

    async def cheapest_to_lose(self) -> str | None:
        """The server whose loss costs least."""
        return self._dispatcher.servers_known.cheapest_to_lose()

    async def lost(self, server_id: str) -> None:
        """A server was taken away for good."""
        self._dispatcher.servers_known.remove(server_id)

    async def unfinished(self) -> int:
        """How many jobs have not ended."""
        return len(self._dispatcher.table.unfinished)

    async def scale(self, servers: int) -> list[str]:
        """Bring the fleet to so many servers; which were taken away. Raises ``FleetError`` where the jobs decide."""
        if self._scaling.is_automatic:
            raise FleetError("this fleet follows its jobs; the numbers between which it does are given when it is started")
        return await self._scaling.to(servers)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Any call of ``Fleet``. Raises ``FleetError``."""
        if method not in FLEET_CALLS:
            raise FleetError(f"the fleet has no call {method}")
        return await getattr(self._dispatcher, method)(*arguments)

    async def __del__(self) -> None:
        await self._scaling.close()
        await self._dispatcher.close()


class GatewayReplica:
    """A gateway: ComfyUI's API on one port, which all gateways of a machine share."""

    async def __init__(self, dispatcher: DeploymentHandle, arguments: Any) -> None:  # type: ignore[misc]
        keep_to_own_address()
        from aiohttp import web

        from fleet.gateway.app import Gateway
        from fleet.gateway.settings import GatewaySettings

        folder = str(Path(arguments.folder).resolve() / "gateway")
        places = places_in(arguments.flags, {**os.environ, **arguments.environment})
        settings = GatewaySettings(
            folder, arguments.listen, arguments.port, allowed_hosts=tuple(arguments.allowed_hosts), cache_providers=places
        )
        gateway = Gateway(RemoteFleet(dispatcher), settings)
        self._runner = web.AppRunner(gateway.make_app(), access_log=None, shutdown_timeout=2.0, auto_decompress=False)
        await self._runner.setup()
        if self._runner.server is not None:
            gateway.gate.guard(self._runner.server)
        for address in settings.listen.split(","):
            await web.TCPSite(self._runner, address.strip(), settings.port, reuse_port=True).start()

    async def __del__(self) -> None:
        await self._runner.cleanup()


def _own_folders(own: Path) -> list[str]:
    """Flags for folders below *own*, which are made."""
    flags = ["--temp-directory", str(own)]
    for name in ("output", "input", "user"):
        (own / name).mkdir(parents=True, exist_ok=True)
        flags += [f"--{name}-directory", str(own / name)]
    return flags


@ray.remote
def _read_started_there(path: str) -> frozenset[str] | None:
    return read_started(path, DEATH_PATIENCE_S)


async def _begun(node_id: str, path: str) -> frozenset[str] | None:
    """The prompts that a dead server has begun, from its file on its node; None when that node is gone too."""
    if node_id == ray.get_runtime_context().get_node_id():
        return await asyncio.to_thread(read_started, path, DEATH_PATIENCE_S)
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    reading = _read_started_there.options(num_cpus=0, scheduling_strategy=there).remote(path)
    try:
        async with asyncio.timeout(READ_PATIENCE_S):
            found: frozenset[str] | None = await reading
            return found
    except (TimeoutError, ray.exceptions.RayError) as error:
        log.warning("%s on node %s cannot be read: %s", path, node_id, error)
        return None
