"""The sockets of connected clients: connecting, negotiating features, and delivering frames to one client or to all."""

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
from aiohttp import web

from app.files.seldom import Seldom
from app.files.strict_json import dumps
from app.sockets.inbound_budget import InboundBudget
from app.sockets.outbox import Frame, Outbox
from comfy.units import MIB
from comfy_api import feature_flags

log = logging.getLogger(__name__)

MAX_INBOUND_BYTES = MIB // 4
CLOSING_TIMEOUT_S = 2.0
MAX_ID_LENGTH = 256


def text_frame(event: str, data: Any) -> Frame:
    """The frame of a JSON message; its text begins with ``{"type":``. Raises ``TypeError`` for data that JSON cannot hold."""
    return Frame(dumps({"type": event, "data": data}), topic_of(event, data))


def topic_of(event: str, data: Any) -> Any:
    """What makes a later message replace this one when a client is slow; None for messages that all count."""
    if event == "status":
        return event
    if event in ("progress", "progress_state") and isinstance(data, dict):
        return event, str(data.get("prompt_id")), str(data.get("node"))
    return None


class WebSocketHub:
    """Client id -> socket, in ``sockets`` (which packs read), what each client can do, and the frames that wait for it.

    All methods run on the server's loop. *greeting* gives the data of the first message to a client id, *resume* the messages
    ``(event, data)`` that tell a client that comes back what runs.
    """

    def __init__(self, greeting: Callable[[str], Any], resume: Callable[[str], list[tuple[str, Any]]]) -> None:
        self.sockets: dict[str, Any] = {}
        self.sockets_metadata: dict[str, dict[str, Any]] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._seldom = Seldom()
        self._greeting = greeting
        self._resume = resume

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register ``/ws``."""
        routes.get("/ws")(self.connect)

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one client until it leaves. A client id that is connected already is taken over."""
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        if len(client_id) > MAX_ID_LENGTH:
            raise web.HTTPBadRequest(text=f"The clientId is longer than {MAX_ID_LENGTH} characters.")
        # Pings are answered here: aiohttp would answer any number of them without asking.
        socket = web.WebSocketResponse(timeout=CLOSING_TIMEOUT_S, max_msg_size=MAX_INBOUND_BYTES, compress=False, autoping=False)
        await socket.prepare(request)
        outbox = self._register(client_id, socket, request)
        try:
            outbox.put(Frame(text_frame("status", self._greeting(client_id)).payload))
            for event, data in self._resume(client_id):
                outbox.put(text_frame(event, data))
            self.joined(client_id)
            if not await self._listen(client_id, socket, outbox) and request.transport is not None:
                request.transport.abort()
        finally:
            self._unregister(client_id, socket)
            await outbox.close()
        return socket

    def _register(self, client_id: str, socket: web.WebSocketResponse, request: web.Request) -> Outbox:
        replaced = self._outboxes.get(client_id)
        if replaced is not None:
            replaced.finish()
        self.sockets[client_id] = socket
        self.sockets_metadata[client_id] = {"feature_flags": {}}

        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        return self._new_outbox(client_id, socket, abort)

    def _unregister(self, client_id: str, socket: Any) -> None:
        """Forget the client, unless a newer connection has taken over its id."""
        if self.sockets.get(client_id) is socket:
            del self.sockets[client_id]
            self.sockets_metadata.pop(client_id, None)
            self._outboxes.pop(client_id, None)
            self.left(client_id)

    def _new_outbox(self, client_id: str, socket: Any, cut_off: Callable[[], object]) -> Outbox:
        outbox = Outbox(socket, client_id, cut_off)
        self._outboxes[client_id] = outbox
        return outbox

    async def _listen(self, client_id: str, socket: web.WebSocketResponse, outbox: Outbox) -> bool:
        """Take what the client sends until it leaves; False when it sends more than anyone needs to and must be cut off."""
        is_first, budget = True, InboundBudget()
        async for message in socket:
            size_bytes = len(message.data) if isinstance(message.data, str | bytes | bytearray) else 0
            if not budget.spend(size_bytes):
                self._say("flood", "Client %.100r sends far too many messages and is disconnected", client_id)
                return False
            if message.type is aiohttp.WSMsgType.ERROR:
                self._say("broken", "The connection to client %.100r broke: %s", client_id, socket.exception())
            elif message.type is aiohttp.WSMsgType.PING:
                with contextlib.suppress(ConnectionError):  # who left meanwhile wants no answer
                    await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT and is_first:
                is_first = not self._read_first(client_id, socket, outbox, message.data)
        return True

    def _say(self, kind: str, text: str, *values: object) -> None:
        """Log once a minute for each *kind*; many clients can do the same thing many times."""
        if self._seldom.is_due(kind):
            log.warning(text + " (said once a minute)", *values)

    def _read_first(self, client_id: str, socket: Any, outbox: Outbox, text: str) -> bool:
        """Take the client's features if *text* tells them, and answer with ours; whether *text* was a message at all."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._say("junk", "Client %.100r sent a message that is not JSON: %s", client_id, error)
            return False
        if isinstance(message, dict) and message.get("type") == "feature_flags":
            flags = message.get("data")
            if self.sockets.get(client_id) is socket:
                self.sockets_metadata[client_id]["feature_flags"] = flags if isinstance(flags, dict) else {}
                self.told_features(client_id)
            outbox.put(text_frame("feature_flags", self.features()))
        return True

    def joined(self, client_id: str) -> None:
        """A client has connected and was greeted. For subclasses."""

    def left(self, client_id: str) -> None:
        """A client is connected no more. For subclasses."""

    def told_features(self, client_id: str) -> None:
        """A client has said what it can do. For subclasses."""

    def features(self) -> dict[str, Any]:
        """What clients that say what they can do are answered."""
        return feature_flags.get_server_features()

    def supports(self, client_id: str, feature: str) -> bool:
        """Whether the client said that it can do *feature*."""
        return feature_flags.supports_feature(self.sockets_metadata, client_id, feature)

    def recipients(self, client_id: str | None) -> list[str]:
        """The connected clients that a message to *client_id* (None: everybody) reaches."""
        if client_id is None:
            return list(self.sockets)
        return [client_id] if client_id in self.sockets else []

    def deliver(self, frame: Frame, client_id: str | None) -> None:
        """Send *frame* to one client or, without an id, to all. Unknown ids are ignored; nothing is waited for."""
        for outbox in self._outboxes_of(client_id):
            outbox.put(frame)

    def _outboxes_of(self, client_id: str | None) -> Iterator[Outbox]:
        for recipient in self.recipients(client_id):
            outbox, socket = self._outboxes.get(recipient), self.sockets[recipient]
            # A pack may have put a socket of its own there.
            yield outbox if outbox is not None and outbox.socket is socket else self._new_outbox(recipient, socket, lambda: None)

    async def close(self) -> None:
        """Tell every client that the server goes away; those that do not answer are left after ``CLOSING_TIMEOUT_S``."""
        farewells = [socket.close(code=aiohttp.WSCloseCode.GOING_AWAY, message=b"The server stops") for socket in self.sockets.values()]
        await asyncio.gather(*farewells, return_exceptions=True)
