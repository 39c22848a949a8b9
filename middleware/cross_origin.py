"""Who may talk to this server from a browser: by which names, and pages of which sites.

A page of another site can make a browser send requests here, and can let its own name lead to this machine (DNS rebinding). What is
refused, by the kind of server:

* One that listens on loopback addresses only answers to loopback names and to those of ``--allowed-host``; the origin of a request, if
  it has one, must be the very place it was sent to.
* One that listens elsewhere answers to every name, or with ``--allowed-host`` to addresses, loopback names and those. Origins are
  checked where the request came in over loopback or with a loopback name.
* Everywhere the browser's word that a request is cross-site counts, and ``Origin: null`` may neither write nor open sockets.
"""

import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from app.files.seldom import Seldom
from middleware.cache_middleware import Handler

log = logging.getLogger(__name__)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
ANY_ORIGIN = "*"


@dataclass(frozen=True, slots=True)
class _Place:
    """A host and the port that was written beside it, if any."""

    host: str
    port: int | None

    @classmethod
    def of(cls, parts: SplitResult) -> "_Place | None":
        """The place that a URL names, None when it names no host. Raises ``ValueError`` for an impossible port or a user's name."""
        if "@" in parts.netloc:
            raise ValueError("a user's name in a host")
        return cls(parts.hostname.lower(), parts.port) if parts.hostname else None

    def agrees_with(self, other: "_Place") -> bool:
        """Whether both can be the same server: a port that one side leaves out is not compared."""
        return self.host == other.host and (self.port is None or other.port is None or self.port == other.port)


def is_loopback(host: str) -> bool:
    """Whether *host* (``localhost`` or an address, without a port) is this machine and nothing else. Names are not looked up."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def listens_on_loopback_only(listen: str) -> bool:
    """Whether every one of the comma-separated addresses of ``--listen`` is a loopback address."""
    return all(is_loopback(part.strip().lower()) for part in listen.split(","))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True, slots=True)
class OriginRules:
    """What the flags say: *loopback_only* as the server listens, the further *allowed_hosts* (lower case), and the one origin that
    ``--enable-cors-header`` lets write."""

    loopback_only: bool
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origin: str | None = None

    @classmethod
    def of(cls, listen: str, allowed_hosts: Iterable[str] = (), allowed_origin: str | None = None) -> "OriginRules":
        """The rules for the flags' values as they were given."""
        return cls(listens_on_loopback_only(listen), frozenset(name.lower() for name in allowed_hosts), allowed_origin)

    def refusal(self, request: web.Request) -> str | None:
        """Why *request* is refused, or None."""
        try:
            host = self._host(request)
        except ValueError:
            return "The Host header names no host."
        if host is not None and not self._answers_to(host.host):
            return f"This server does not answer to the name {host.host[:100]!r}; --allowed-host {host.host[:100]} would let it."
        return self._origin_refusal(request, host)

    def _host(self, request: web.Request) -> _Place | None:
        headers = request.headers.getall("Host", [])
        if len(headers) > 1:
            raise ValueError("several hosts")
        return _Place.of(urlsplit("//" + headers[0])) if headers and headers[0] else None

    def _answers_to(self, host: str) -> bool:
        if is_loopback(host) or host in self.allowed_hosts:
            return True
        if self.loopback_only:
            return False
        return not self.allowed_hosts or _address(host) is not None

    def _origin_refusal(self, request: web.Request, host: _Place | None) -> str | None:
        origin_header = request.headers.get("Origin")
        if self.allowed_origin is not None and origin_header == self.allowed_origin:
            return None
        changes = request.method not in _READING or request.headers.get("Upgrade", "").lower() == "websocket"
        if self.allowed_origin is not None and not changes:
            return None  # whoever may not read gets no header that would let him
        foreign = "Requests from pages of other sites are refused."
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            return foreign
        if not origin_header:
            return None
        if origin_header == "null":
            return "A page without an origin of its own may not change anything here." if changes else None
        try:
            origin = _Place.of(urlsplit(origin_header))
        except ValueError:
            return foreign
        if host is None or origin is None or host.agrees_with(origin):
            return None
        return foreign if self._is_checked(request, host) else None

    def _is_checked(self, request: web.Request, host: _Place) -> bool:
        """Whether an origin must be the host itself: always on loopback, and where only one foreign origin is let in."""
        if self.loopback_only or self.allowed_origin is not None or is_loopback(host.host) or host.host == "0.0.0.0":
            return True
        own = request.get_extra_info("sockname")
        return isinstance(own, tuple) and is_loopback(str(own[0]))


def make_origin_guard(rules: OriginRules) -> Middleware:
    """A middleware: 403 for what *rules* refuse, which is said once a minute; OPTIONS is answered with nothing."""
    seldom = Seldom()

    @web.middleware
    async def origin_guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = rules.refusal(request)
        if refusal is not None:
            if seldom.is_due(refusal[:40]):
                origin, host = request.headers.get("Origin", "–"), request.headers.get("Host", "–")
                log.warning("Refused a request to %.100r by a page of %.100r: %s", host, origin, refusal)
            return web.json_response({"error": refusal}, status=403)
        return web.Response() if request.method == "OPTIONS" else await handler(request)

    return origin_guard


def make_cors(allowed_origin: str) -> Middleware:
    """A middleware that tells browsers to let pages of *allowed_origin* (``*``: of every site) use this server."""
    headers = {
        "Access-Control-Allow-Origin": allowed_origin,
        "Access-Control-Allow-Methods": "POST, GET, DELETE, PUT, OPTIONS, PATCH",
        "Access-Control-Allow-Headers": "Content-Type, Authorization",
        "Access-Control-Allow-Credentials": "true",
    }

    @web.middleware
    async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = web.Response() if request.method == "OPTIONS" else await handler(request)
        response.headers.update(headers)
        return response

    return cors
