"""A WebSocket to one server under the id of one client, opened again whenever it is lost."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
HEARTBEAT_S = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


class Listener(Protocol):
    """Who hears a server. Called on the gateway's loop, one frame after the other; must not block."""

    def heard_text(self, server_id: str, text: str, message: dict[str, Any]) -> None:
        """A message, raw and decoded: ``{"type": …, "data": …}``."""

    def heard_bytes(self, server_id: str, frame: bytes) -> None:
        """A binary frame."""


class ServerSocket:
    """Connects from its construction to ``close``, in the background, on the loop that made it. What the listener raises is logged."""

    def __init__(self, session: aiohttp.ClientSession, server_id: str, base_url: str, client_id: str, listener: Listener) -> None:
        self.server_id = server_id
        self.base_url = base_url
        # Set once the first try has succeeded or failed.
        self.was_tried = asyncio.Event()
        self.is_connected = False
        self.server_features: dict[str, Any] = {}
        self.connected: Callable[[], None] = lambda: None
        self.disconnected: Callable[[], None] = lambda: None
        self._features: dict[str, Any] | None = None
        self._session = session
        self._client_id = client_id
        self._listener = listener
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._running = asyncio.get_running_loop().create_task(self._stay_connected(), name=f"socket-{server_id}")

    async def close(self) -> None:
        """Disconnect for good."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def announce(self, features: dict[str, Any]) -> None:
        """Tell the server, now and after each reconnection, what the client can do."""
        self._features = features
        if self._socket is not None and self.is_connected:
            await self._send_features(self._socket)

    async def _send_features(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            await socket.send_str(json.dumps({"type": "feature_flags", "data": self._features}))
        except (ConnectionError, RuntimeError) as error:
            log.debug("server %s was lost before it heard what the client can do: %s", self.server_id, error)

    async def _stay_connected(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._connect_and_read()
                pause_s = FIRST_PAUSE_S
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.debug("server %s cannot be listened to: %s", self.server_id, error)
            self.was_tried.set()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _connect_and_read(self) -> None:
        scheme, _, rest = self.base_url.partition("://")
        url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws?{urlencode({'clientId': self._client_id})}"
        opening = self._session.ws_connect(url, heartbeat=HEARTBEAT_S, max_msg_size=0)
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            opened = await opening
        async with opened as socket:
            self._socket, self.is_connected = socket, True
            try:
                if self._features is not None:
                    await self._send_features(socket)
                self.was_tried.set()
                self.connected()
                async for frame in socket:
                    self._take(frame)
            finally:
                self._socket, self.is_connected = None, False
                self.disconnected()

    def _take(self, frame: aiohttp.WSMessage) -> None:
        try:
            self._read(frame)
        except Exception:
            # Packs send what they like; one message that nobody expected must not end all others.
            log.exception("A message of server %s could not be handled", self.server_id)

    def _read(self, frame: aiohttp.WSMessage) -> None:
        if frame.type is aiohttp.WSMsgType.BINARY:
            self._listener.heard_bytes(self.server_id, frame.data)
        elif frame.type is aiohttp.WSMsgType.TEXT:
            message = json.loads(frame.data)
            if not isinstance(message, dict):
                raise ValueError(f"not a message: {frame.data:.200}")
            if message.get("type") == "feature_flags":
                self.server_features = message["data"] if isinstance(message.get("data"), dict) else {}
            else:
                self._listener.heard_text(self.server_id, frame.data, message)
