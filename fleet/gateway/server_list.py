"""The servers of the fleet as this gateway last heard of them."""

import asyncio
import logging
from collections.abc import Callable

from fleet.interface import Fleet, FleetError, NoServer
from fleet.values import ServerState, ServerView

log = logging.getLogger(__name__)

REACHABLE = frozenset({ServerState.READY, ServerState.DRAINING})


class ServerList:
    """Asked of the fleet by ``refresh``; *changed* is called when servers came, went or moved. Used on the gateway's loop."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._views: dict[str, ServerView] = {}
        self._refreshing = asyncio.Lock()
        self.changed: list[Callable[[], None]] = []

    async def refresh(self) -> None:
        """Ask the fleet anew; what was known stays if it cannot be asked."""
        async with self._refreshing:
            try:
                views = {view.server_id: view for view in await self._fleet.servers()}
            except FleetError as error:
                log.warning("The fleet cannot be asked for its servers: %s", error)
                return
            before, self._views = self.reachable(), views
            if before != self.reachable():
                for callback in self.changed:
                    callback()

    def views(self) -> list[ServerView]:
        """All of them, in the order in which they joined."""
        return list(self._views.values())

    def reachable(self) -> dict[str, str]:
        """Base URLs by id of the servers that answer."""
        return {view.server_id: view.base_url for view in self._views.values() if view.state in REACHABLE}

    def url_of(self, server_id: str) -> str | None:
        """Where that server is, None for one that is gone or starts."""
        return self.reachable().get(server_id)

    def first(self) -> tuple[str, str]:
        """Id and base URL of the server that answers for all of them. Raises ``NoServer``."""
        for server_id, base_url in self.reachable().items():
            return server_id, base_url
        raise NoServer("no server of the fleet is up; see /fleet for their states")
