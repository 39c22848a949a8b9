"""The worker's one WebSocket to the server, kept open between jobs, and the messages it brings for each prompt."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp

from serverless.server_api import ServerApi, ServerUnreachable

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
HEARTBEAT_S = 30.0
FIRST_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Event:
    """A message of the server, or a change of the connection: ``kind`` is then ``LOST`` or ``BACK`` and ``data`` is empty."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)


LOST = Event("connection_lost")
BACK = Event("connection_back")


class ServerEvents:
    """Connects when asked, reads in the background, and reconnects by itself while somebody listens. Lives on one loop."""

    def __init__(self, api: ServerApi, client_id: str, retry_delay_s: float = 3.0, trace: bool = False) -> None:
        """*retry_delay_s*: the longest pause between tries to connect again; *trace* logs every frame."""
        self._api = api
        self._client_id = client_id
        self._retry_delay_s = retry_delay_s
        self._trace = trace
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._listeners: dict[str, list[asyncio.Queue[Event]]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether messages can arrive now."""
        return self._socket is not None and not self._socket.closed

    async def connect(self) -> None:
        """Open the socket unless it is open. Raises ``ServerUnreachable``."""
        async with self._opening:
            if self.is_connected:
                return
            self._socket = await self._open()
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read_forever(), name="server-events")

    async def close(self) -> None:
        """Close the socket and forget everybody who listens."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    @contextlib.contextmanager
    def listen(self, prompt_id: str) -> Iterator[asyncio.Queue[Event]]:
        """A queue of the events of *prompt_id* (and of the connection) from now until the block ends."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.setdefault(prompt_id, []).append(queue)
        try:
            yield queue
        finally:
            self._listeners[prompt_id].remove(queue)
            if not self._listeners[prompt_id]:
                del self._listeners[prompt_id]

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        scheme, _, rest = self._api.base_url.partition("://")
        url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws?{urlencode({'clientId': self._client_id})}"
        try:
            return await asyncio.wait_for(
                self._api.session.ws_connect(url, heartbeat=HEARTBEAT_S, max_msg_size=0, autoclose=True), CONNECT_TIMEOUT_S
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerUnreachable(url, error) from error

    async def _read_forever(self) -> None:
        while self._socket is not None:
            await self._read(self._socket)
            if not self._listeners:
                log.debug("The socket to the server closed between jobs; the next job opens it")
                return
            log.warning("The socket to the server was lost during a job; connecting again")
            self._tell_all(LOST)
            if not await self._open_again():
                return
            self._tell_all(BACK)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for frame in socket:
                if self._trace:
                    log.info("WebSocket frame: %s %.500r", frame.type.name, frame.data)
                if frame.type is aiohttp.WSMsgType.TEXT:
                    self._take(frame.data)
        except (aiohttp.ClientError, OSError) as error:
            log.debug("reading the socket ended: %s", error)
        await socket.close()

    async def _open_again(self) -> bool:
        """Try until it works or nobody listens any more; returns whether it worked."""
        pause_s = min(FIRST_RETRY_S, self._retry_delay_s)
        while self._listeners:
            try:
                self._socket = await self._open()
                return True
            except ServerUnreachable as error:
                log.debug("connecting again: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._retry_delay_s) or FIRST_RETRY_S
        return False

    def _take(self, text: str) -> None:
        try:
            message = json.loads(text)
            kind, data = message["type"], message.get("data")
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("The server sent something that is not a message: %.200r", text)
            return
        if isinstance(data, dict):
            for queue in self._listeners.get(str(data.get("prompt_id")), ()):
                queue.put_nowait(Event(str(kind), data))

    def _tell_all(self, event: Event) -> None:
        for queues in self._listeners.values():
            for queue in queues:
                queue.put_nowait(event)
