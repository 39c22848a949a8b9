"""How many connections there may be, so that those that never finish a request do not keep others out."""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from app.files.seldom import Seldom

log = logging.getLogger(__name__)

HANDSHAKE_LIMIT_S = 20.0
STALLED_BODY_S = 60.0
UNFINISHED_PER_PEER = 64
MOST_CONNECTIONS = 4096
# Files that the rest of the process opens: models, results, sockets of packs.
RESERVED_FILES = 128


@dataclass(slots=True, eq=False)
class _Connection:
    """*request* is the one being answered; *was_asked* tells whether a whole request head has ever arrived."""

    transport: asyncio.Transport
    peer: str
    since_s: float
    was_asked: bool = False
    request: web.BaseRequest | None = None

    def stalls(self, now_s: float) -> bool:
        """Whether the request's body has not arrived for long."""
        return self.request is not None and not self.request.content.is_eof() and now_s - self.since_s > STALLED_BODY_S

    def rank(self, now_s: float) -> int | None:
        """The lower, the sooner it makes way for a new connection; None: never."""
        if not self.was_asked:
            return 0
        if self.stalls(now_s):
            return 1
        return 2 if self.request is None else None


class ConnectionGate:
    """Watches the connections of one server, on its loop; put ``middleware`` outside of all others, and call ``guard`` once.

    A connection that brings no whole request head within ``HANDSHAKE_LIMIT_S`` is closed, and of one peer at most
    ``UNFINISHED_PER_PEER`` such are kept. When there are *limit* connections, the oldest that waits for a request makes way, or else
    one whose body stalls, or one that is idle; if all are busy, the new one is closed.
    """

    def __init__(self, limit: int | None = None, clock: Callable[[], float] | None = None) -> None:
        self.limit = limit if limit is not None else most_connections()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._connections: dict[Any, _Connection] = {}
        self._seldom = Seldom()

    def __len__(self) -> int:
        return len(self._connections)

    def guard(self, server: web.Server) -> None:
        """Hear of every connection that *server* gets and loses from now on."""
        made, lost = server.connection_made, server.connection_lost

        def connection_made(handler: Any, transport: asyncio.Transport) -> None:
            made(handler, transport)
            self.opened(handler, transport)

        def connection_lost(handler: Any, error: BaseException | None = None) -> None:
            self._connections.pop(handler, None)
            lost(handler, error)

        server.connection_made, server.connection_lost = connection_made, connection_lost  # type: ignore[method-assign, assignment]

    @property
    def middleware(self) -> Middleware:
        """Notes which connections ask for something."""

        @web.middleware
        async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._connections.get(request.protocol)
            if connection is None:
                return await handler(request)
            connection.was_asked, connection.request, connection.since_s = True, request, self._clock()
            try:
                return await handler(request)
            finally:
                connection.request, connection.since_s = None, self._clock()

        return note_request

    def opened(self, handler: Any, transport: asyncio.Transport) -> None:
        """Take in a new connection; another one may have to make way for it, or it is closed itself."""
        address = transport.get_extra_info("peername")
        peer = str(address[0]) if isinstance(address, tuple) else ""
        unfinished = [one for one in self._connections.values() if not one.was_asked and one.peer == peer]
        if len(unfinished) >= UNFINISHED_PER_PEER:
            self._close(unfinished[0], f"{peer} has more than {UNFINISHED_PER_PEER} connections without a request")
        if len(self._connections) >= self.limit and not self._make_room():
            transport.abort()
            return
        self._connections[handler] = _Connection(transport, peer, self._clock())
        asyncio.get_running_loop().call_later(HANDSHAKE_LIMIT_S, self._expire, handler)

    def _make_room(self) -> bool:
        now_s = self._clock()
        ranked = [(rank, one.since_s, one) for one in self._connections.values() if (rank := one.rank(now_s)) is not None]
        if not ranked:
            if self._seldom.is_due("full"):
                log.warning("All %d connections are in use; further ones are closed", self.limit)
            return False
        self._close(min(ranked, key=lambda entry: entry[:2])[2], f"there are {self.limit} connections already")
        return True

    def _expire(self, handler: Any) -> None:
        connection = self._connections.get(handler)
        if connection is not None and not connection.was_asked:
            self._close(connection, f"no request arrived within {HANDSHAKE_LIMIT_S:.0f} s")

    def _close(self, connection: _Connection, why: str) -> None:
        for handler, known in list(self._connections.items()):
            if known is connection:
                del self._connections[handler]
        if self._seldom.is_due(why[-20:]):
            log.info("A connection of %s is closed: %s (said once a minute)", connection.peer, why)
        connection.transport.abort()


def most_connections() -> int:
    """As many as the process may open files, less those it needs itself."""
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else soft
    return max(RESERVED_FILES // 2, min(MOST_CONNECTIONS, files - RESERVED_FILES))
