"""Listening on addresses, with or without TLS."""

import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the server can be reached."""

    scheme: str
    address: str
    port: int

    @property
    def url(self) -> str:
        """The address as a browser takes it."""
        return f"{self.scheme}://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


def tls_context(keyfile: str | None, certfile: str | None) -> ssl.SSLContext | None:
    """The TLS settings for a key and certificate, None without them. Raises ``OSError`` for files that do not fit."""
    if not keyfile or not certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile=certfile, keyfile=keyfile)
    return context


class ReservedPorts:
    """Sockets that are bound but do not listen yet: nobody else can take their ports, and nobody is kept waiting by them."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[str, int], socket.socket] = {}

    def reserve(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Bind every (address, port) that can be bound; port 0 and names are left for later.

        Raises ``SystemExit(1)`` when a port is taken, which is logged. Other errors are left to :func:`listen`, which says them.
        """
        for address, port in addresses:
            try:
                family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
            except ValueError:
                continue
            if port == 0 or (address, port) in self._sockets:
                continue
            bound = socket.socket(family, socket.SOCK_STREAM)
            try:
                if os.name == "posix":
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6 and hasattr(socket, "IPV6_V6ONLY"):
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((address, port))
            except OSError as error:
                bound.close()
                if error.errno == errno.EADDRINUSE:
                    raise _taken(address, port) from None
                continue
            self._sockets[address, port] = bound

    def take(self, address: str, port: int) -> socket.socket | None:
        """The socket for an address, which now belongs to the caller; None when none was bound."""
        return self._sockets.pop((address, port), None)


def _taken(address: str, port: int) -> SystemExit:
    log.error("Port %d of %s is taken by another program. Stop that one or choose another with --port.", port, address)
    return SystemExit(1)


async def listen(
    runner: web.AppRunner, addresses: Iterable[tuple[str, int]], tls: ssl.SSLContext | None, reserved: ReservedPorts | None = None
) -> list[Listener]:
    """Serve *runner* on every (address, port); port 0 takes a free one. Returns where it can be reached.

    Sockets that were *reserved* are used. An address that cannot be used is logged; a port that is taken, or no usable address at all,
    raises ``SystemExit(1)``.
    """
    listeners = []
    for address, port in addresses:
        bound = reserved.take(address, port) if reserved is not None else None
        site: web.BaseSite
        if bound is None:
            site = web.TCPSite(runner, address, port, ssl_context=tls)
        else:
            site = web.SockSite(runner, bound, ssl_context=tls)
        known = len(runner.addresses)
        try:
            await site.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _taken(address, port) from None
            log.error("Cannot listen on %s port %d: %s", address, port, error.strerror or error)
            continue
        listeners.append(Listener("https" if tls else "http", address, runner.addresses[known][1]))
    if not listeners:
        raise SystemExit(1)
    return listeners
