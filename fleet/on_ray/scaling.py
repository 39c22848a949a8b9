"""More or fewer servers while the fleet works."""

import asyncio
import logging
import time
from typing import Any

import ray
from ray import serve
from ray.serve._private.common import DeploymentID
from ray.serve.context import _get_global_client

from fleet.on_ray.app import SERVERS
from fleet.on_ray.deployments import APPLICATION

log = logging.getLogger(__name__)

DRAIN_LIMIT_S = 600.0
LOOK_EVERY_S = 0.1
SEEN_LIMIT_S = 60.0


async def scale(dispatcher: Any, now: int, wanted: int) -> list[str]:
    """Bring the fleet from *now* to *wanted* servers; returns the servers that were taken away, those whose loss costs least.

    *dispatcher*: the handle of the dispatcher's deployment. Jobs at a server that goes are finished before. Run it in one process at a
    time.
    """
    taken = []
    while now > wanted:
        server_id = await dispatcher.cheapest_to_lose.remote()
        if server_id is None:
            break
        await _take_away(dispatcher, server_id, now - 1)
        taken.append(server_id)
        now -= 1
    if now < wanted:
        await _target(wanted)
        while _running() < wanted:
            await asyncio.sleep(LOOK_EVERY_S)
    return taken


async def _take_away(dispatcher: Any, server_id: str, left: int) -> None:
    """End one server. Serve itself would take the newest; of replicas that do not run, it takes those first."""
    end_s = time.monotonic() + DRAIN_LIMIT_S
    while not await dispatcher.drain.remote(server_id):
        if time.monotonic() > end_s:
            log.warning("Server %s still has jobs after %.0f s; they are sent on or lost", server_id, DRAIN_LIMIT_S)
            break
        await asyncio.sleep(LOOK_EVERY_S)
    ray.kill(ray.get_actor(f"SERVE_REPLICA::{APPLICATION}#{SERVERS}#{server_id}", namespace="serve"))
    seen_s = time.monotonic() + SEEN_LIMIT_S
    while _running() > left and time.monotonic() < seen_s:
        await asyncio.sleep(LOOK_EVERY_S)
    await _target(left)
    await dispatcher.lost.remote(server_id)


async def _target(servers: int) -> None:
    """Have Serve's controller keep so many replicas, as its REST route for external scalers does; deploying anew would restart all."""
    client = _get_global_client()
    await client._controller.update_deployment_replicas.remote(DeploymentID(name=SERVERS, app_name=APPLICATION), servers)


def _running() -> int:
    status = serve.status().applications.get(APPLICATION)
    deployment = None if status is None else status.deployments.get(SERVERS)
    return 0 if deployment is None else deployment.replica_states.get("RUNNING", 0)
