"""Following what the fleet says of itself: servers that come and go, and jobs that end without a server that could say so."""

import asyncio
import logging

from fleet.gateway.client_hub import ClientHub
from fleet.gateway.queue_count import QueueCount
from fleet.gateway.server_list import ServerList
from fleet.interface import Fleet, FleetError
from fleet.values import FleetEvent, JobState

log = logging.getLogger(__name__)

PAUSE_AFTER_ERROR_S = 1.0
REFRESH_S = 5.0
# A server tells its client of an end itself, unless its socket was just lost.
END_GRACE_S = 1.0


class FleetEvents:
    """One per gateway; ``start`` it on the loop, ``close`` it there."""

    def __init__(self, fleet: Fleet, servers: ServerList, hub: ClientHub, count: QueueCount) -> None:
        self._fleet, self._servers, self._hub, self._count = fleet, servers, hub, count
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(), name="fleet-events"), loop.create_task(self._refresh(), name="fleet-servers")]

    async def close(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._servers.refresh()

    async def _follow(self) -> None:
        after = -1
        while True:
            try:
                events = await self._fleet.events(after)
            except FleetError as error:
                log.warning("The fleet's events cannot be followed: %s", error)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                continue
            for event in events:
                if after >= 0 and event.sequence > after + 1:
                    log.warning("%d events of the fleet were missed; asking for everything anew", event.sequence - after - 1)
                    await self._servers.refresh()
                is_first, after = after < 0, event.sequence
                if not is_first:
                    await self._take(event)

    async def _take(self, event: FleetEvent) -> None:
        if event.kind == "servers":
            await self._servers.refresh()
            return
        if event.kind == "ended" and event.prompt_id is not None:
            self._ended(event, event.prompt_id)
        self._count.ask_soon()

    def _ended(self, event: FleetEvent, prompt_id: str) -> None:
        if event.client_id is None:
            return
        if event.state is JobState.LOST:
            self._hub.tell_end(event.client_id, prompt_id, event.failure or "the server that ran it died")
            return
        asyncio.get_running_loop().call_later(END_GRACE_S, self._hub.tell_end, event.client_id, prompt_id, None)
