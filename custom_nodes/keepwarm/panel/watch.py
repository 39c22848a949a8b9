"""Telling the pages that show the panel what changes; nothing is read or sent as long as there is none."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from .differences import Picture, difference, steadied

log = logging.getLogger(__name__)

INTERVAL_S = 0.5
EVENT = "keepwarm.models"
MOST_WATCHERS = 64


class TooManyWatchers(Exception):
    """No further page can be told."""


class Watch:
    """One per process, used on the server's loop.

    *read* gives the picture and is called on a worker thread; *send* takes (event, data, client id); *connected* holds the ids of the
    clients that have a socket.
    """

    def __init__(
        self,
        read: Callable[[], Picture],
        send: Callable[[str, Any, str], None],
        connected: Callable[[], Mapping[str, Any]],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._read, self._send, self._connected, self._interval_s = read, send, connected, interval_s
        self._watchers: dict[str, Any] = {}  # client id -> its socket when it came
        self._picture: Picture | None = None
        self._revision = 0
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def watchers(self) -> int:
        """How many pages are told."""
        return len(self._watchers)

    def start(self, client_id: str) -> bool:
        """Tell *client_id* from now on; whether it has a socket. Raises :class:`TooManyWatchers`."""
        socket = self._connected().get(client_id)
        if socket is None:
            return False
        if len(self._watchers) >= MOST_WATCHERS and client_id not in self._watchers:
            self._forget_those_who_left()
            if len(self._watchers) >= MOST_WATCHERS:
                raise TooManyWatchers
        self._watchers[client_id] = socket
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep_telling())
        return True

    def stop(self, client_id: str) -> None:
        """Tell *client_id* nothing more."""
        self._watchers.pop(client_id, None)

    async def close(self) -> None:
        """End telling."""
        self._watchers.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def picture(self) -> tuple[int, Picture]:
        """Everything as it is now, and the number of this state: messages with greater numbers say what changed since."""
        await self._look()
        assert self._picture is not None
        return self._revision, self._picture

    async def _keep_telling(self) -> None:
        while self._watchers:
            try:
                await self._look()
                self._failed = False
            except Exception:
                if not self._failed:
                    log.warning("What the panel shows cannot be read; it is tried again", exc_info=True)
                self._failed = True
            await asyncio.sleep(self._interval_s)
            self._forget_those_who_left()

    async def _look(self) -> None:
        """Read, and tell all who watch what has changed."""
        async with self._reading:
            new = steadied(self._picture, await asyncio.to_thread(self._read))
            old, self._picture = self._picture, new
            changes = {} if old is None else difference(old, new)
            if changes is None:
                return
            self._revision += 1
            for client_id in self._watchers if old is not None else ():
                self._send(EVENT, {"rev": self._revision, **changes}, client_id)

    def _forget_those_who_left(self) -> None:
        """A client whose socket is another one now has to come again: what was sent meanwhile did not reach it."""
        connected = self._connected()
        self._watchers = {client_id: socket for client_id, socket in self._watchers.items() if connected.get(client_id) is socket}
