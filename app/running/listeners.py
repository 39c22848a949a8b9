"""Listening on addresses, with or without TLS."""

import errno
import logging
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


async def listen(runner: web.AppRunner, addresses: Iterable[tuple[str, int]], tls: ssl.SSLContext | None) -> list[Listener]:
    """Serve *runner* on every (address, port); port 0 takes a free one. Returns where it can be reached.

    An address that cannot be used is logged; a port that is taken, or no usable address at all, raises ``SystemExit(1)``.
    """
    listeners = []
    for address, port in addresses:
        site = web.TCPSite(runner, address, port, ssl_context=tls)
        known = len(runner.addresses)
        try:
            await site.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                log.error("Port %d of %s is taken by another program. Stop that one or choose another with --port.", port, address)
                raise SystemExit(1) from None
            log.error("Cannot listen on %s port %d: %s", address, port, error.strerror or error)
            continue
        listeners.append(Listener("https" if tls else "http", address, runner.addresses[known][1]))
    if not listeners:
        raise SystemExit(1)
    return listeners
