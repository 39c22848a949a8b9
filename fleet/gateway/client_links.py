"""What connects one client of the gateway with every server: a socket to each, under the client's own id."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from fleet.gateway.server_socket import Listener, ServerSocket

READY_PATIENCE_S = 2.0


class ClientLinks:
    """Sockets of one client id; made and used on the gateway's loop, and closed by ``close``."""

    def __init__(self, session: aiohttp.ClientSession, client_id: str, listener: Listener) -> None:
        self._session = session
        self._client_id = client_id
        self._listener = listener
        self._features: dict[str, Any] | None = None
        self._sockets: dict[str, ServerSocket] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def follow(self, urls: Mapping[str, str]) -> None:
        """Have a socket to each of these servers, and to no others."""
        for server_id, socket in list(self._sockets.items()):
            if urls.get(server_id) != socket.base_url:
                del self._sockets[server_id]
                self._in_background(socket.close())
        for server_id, base_url in urls.items():
            if server_id not in self._sockets:
                socket = ServerSocket(self._session, server_id, base_url, self._client_id, self._listener)
                self._sockets[server_id] = socket
                if self._features is not None:
                    self._in_background(socket.announce(self._features))

    def announce(self, features: dict[str, Any]) -> None:
        """What the client can do, for all servers."""
        self._features = features
        for socket in self._sockets.values():
            self._in_background(socket.announce(features))

    async def ready(self) -> None:
        """Return when every socket is open or was tried, so that no message of a prompt sent now is missed; after 2 s at the latest."""
        tries = [asyncio.ensure_future(socket.was_tried.wait()) for socket in self._sockets.values() if not socket.was_tried.is_set()]
        if tries:
            await asyncio.wait(tries, timeout=READY_PATIENCE_S)
            for one in tries:
                one.cancel()

    def features_of(self, server_id: str) -> dict[str, Any]:
        """What that server announced."""
        socket = self._sockets.get(server_id)
        return socket.server_features if socket is not None else {}

    async def close(self) -> None:
        """Disconnect from all servers."""
        sockets, self._sockets = list(self._sockets.values()), {}
        await asyncio.gather(*(socket.close() for socket in sockets), *self._closing, return_exceptions=True)

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
