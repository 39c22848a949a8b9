"""More or fewer servers while the fleet works."""

import asyncio
import logging
import time
from typing import Any

import ray
from ray import serve

from fleet.on_ray.app import SERVERS
from fleet.on_ray.deployments import APPLICATION
from fleet.on_ray.up import deploy
from fleet.settings import UpSettings

log = logging.getLogger(__name__)

DRAIN_LIMIT_S = 600.0
LOOK_EVERY_S = 0.1
SEEN_LIMIT_S = 60.0


async def scale(dispatcher: Any, settings: UpSettings, now: int, wanted: int) -> list[str]:
    """Bring the fleet from *now* to *wanted* servers; returns the servers that were taken away, those whose loss costs least.

    *dispatcher*: the handle of the dispatcher's deployment. Jobs at a server that goes are finished before. Run it in one process at a
    time.
    """
    taken = []
    while now > wanted:
        server_id = await dispatcher.cheapest_to_lose.remote()
        if server_id is None:
            break
        await _take_away(dispatcher, settings, server_id, now - 1)
        taken.append(server_id)
        now -= 1
    if now < wanted:
        await asyncio.to_thread(deploy, settings, wanted)
    return taken


async def _take_away(dispatcher: Any, settings: UpSettings, server_id: str, left: int) -> None:
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
    await asyncio.to_thread(deploy, settings, left)
    await dispatcher.lost.remote(server_id)


def _running() -> int:
    status = serve.status().applications.get(APPLICATION)
    deployment = None if status is None else status.deployments.get(SERVERS)
    return 0 if deployment is None else deployment.replica_states.get("RUNNING", 0)
