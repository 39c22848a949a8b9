"""More or fewer servers while the fleet works."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import ray
from ray import serve
from ray.serve._private.common import DeploymentID
from ray.serve.context import _get_global_client

from fleet.fleet_size import FleetSize

log = logging.getLogger(__name__)

APPLICATION, SERVERS = "fleet", "Servers"
DRAIN_LIMIT_S = 600.0
LOOK_EVERY_S = 0.1
SEEN_LIMIT_S = 60.0
DECIDE_EVERY_S = 1.0


class Head(Protocol):
    """What scaling asks of the dispatcher."""

    async def cheapest_to_lose(self) -> str | None:
        """The server whose loss costs least."""

    async def drain(self, server_id: str) -> bool:
        """Send no more jobs to a server; whether it has none any more."""

    async def lost(self, server_id: str) -> None:
        """A server was taken away for good."""

    async def unfinished(self) -> int:
        """How many jobs have not ended."""


class Scaling:
    """Brings the fleet of *head* to a number of servers: asked for by :meth:`to`, or, with *size*, by the jobs that there are.

    In the dispatcher's process, so that there is one. ``start`` it and ``close`` it on its loop.
    """

    def __init__(self, head: Head, size: FleetSize | None) -> None:
        self._head, self._size = head, size
        self._lock = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the jobs, if that is wanted."""
        if self._size is not None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep(self._size), name="fleet-size")

    async def close(self) -> None:
        """Leave the fleet as it is."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    @property
    def is_automatic(self) -> bool:
        """Whether the jobs decide."""
        return self._size is not None

    async def to(self, wanted: int) -> list[str]:
        """Return when the fleet has *wanted* servers; which were taken away, once their jobs had ended: those whose loss costs least."""
        async with self._lock:
            now, taken = await asyncio.to_thread(_placed), list[str]()
            while now > wanted:
                server_id = await self._head.cheapest_to_lose()
                if server_id is None:
                    log.warning("No server is up that could be taken away; the fleet stays at %d", now)
                    return taken
                now -= 1
                await self._take_away(server_id, now)
                taken.append(server_id)
            if now < wanted:
                await _target(wanted)
                while await asyncio.to_thread(_running) < wanted:
                    await asyncio.sleep(LOOK_EVERY_S)
            return taken

    async def _take_away(self, server_id: str, left: int) -> None:
        """End one server. Serve itself would take the newest; of replicas that do not run, it takes those first."""
        end_s = time.monotonic() + DRAIN_LIMIT_S
        while not await self._head.drain(server_id):
            if time.monotonic() > end_s:
                log.warning("Server %s still has jobs after %.0f s; they are sent on or lost", server_id, DRAIN_LIMIT_S)
                break
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.to_thread(_kill, server_id)
        await _until_at_most(left, _running)
        await _target(left)
        # Serve may have begun to replace the one that is gone.
        await _until_at_most(left, _placed)
        await self._head.lost(server_id)

    async def _keep(self, size: FleetSize) -> None:
        while True:
            await asyncio.sleep(DECIDE_EVERY_S)
            try:
                now, jobs = await asyncio.to_thread(_placed), await self._head.unfinished()
                wanted = size.wanted(now, jobs, time.monotonic())
                if now and wanted != now:
                    log.info("The fleet goes from %d to %d servers, for it has %d jobs", now, wanted, jobs)
                    await self.to(wanted)
            except Exception:
                log.exception("The fleet's size could not be changed; it is tried again")


def _kill(server_id: str) -> None:
    ray.kill(ray.get_actor(f"SERVE_REPLICA::{APPLICATION}#{SERVERS}#{server_id}", namespace="serve"))


async def _until_at_most(servers: int, count: Callable[[], int]) -> None:
    end_s = time.monotonic() + SEEN_LIMIT_S
    while await asyncio.to_thread(count) > servers and time.monotonic() < end_s:
        await asyncio.sleep(LOOK_EVERY_S)


async def _target(servers: int) -> None:
    """Have Serve's controller keep so many replicas, as its REST route for external scalers does; deploying anew would restart all."""
    client = _get_global_client()
    await client._controller.update_deployment_replicas.remote(DeploymentID(name=SERVERS, app_name=APPLICATION), servers)


def _states() -> dict[str, int]:
    status = serve.status().applications.get(APPLICATION)
    deployment = None if status is None else status.deployments.get(SERVERS)
    return {} if deployment is None else {str(state): count for state, count in deployment.replica_states.items()}


def _running() -> int:
    return _states().get("RUNNING", 0)


def _placed() -> int:
    """Servers that run or will."""
    return sum(count for state, count in _states().items() if state != "STOPPING")
