"""Who may talk to this server from a browser: a check of the origin, or the CORS headers that replace it."""

import asyncio
import ipaddress
import logging
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from middleware.cache_middleware import Handler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Place:
    """A host and the port that was written beside it, if any."""

    host: str
    port: int | None

    @classmethod
    def of(cls, parts: SplitResult) -> "_Place | None":
        """The place that a URL names, None when it names no host. Raises ``ValueError`` for an impossible port."""
        return cls(parts.hostname.lower(), parts.port) if parts.hostname else None

    def agrees_with(self, other: "_Place") -> bool:
        """Whether both can be the same server: a port that one side leaves out is not compared."""
        return self.host == other.host and (self.port is None or other.port is None or self.port == other.port)


def _is_loopback_address(text: str) -> bool:
    """Whether *text* is an address of this machine only; the unspecified address reaches it as well."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


async def is_loopback(host: str) -> bool:
    """Whether *host* (a name or an address) stands for this machine only. Names are looked up without blocking the loop."""
    if host == "localhost" or host.endswith(".localhost") or _is_loopback_address(host):
        return True
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_loopback_address(str(entry[4][0])) for entry in found)


async def _is_foreign(request: web.Request) -> bool:
    """Whether a page of another site sent *request* to a loopback address."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    host_header, origin_header = request.headers.get("Host"), request.headers.get("Origin")
    if not host_header or not origin_header:
        return False
    try:
        host, origin = _Place.of(urlsplit("//" + host_header)), _Place.of(urlsplit(origin_header))
    except ValueError:
        return True
    if host is None or origin is None or host.agrees_with(origin) or not await is_loopback(host.host):
        return False
    log.warning("Refused a request that a page of %s sent to %s; --enable-cors-header would allow it", origin_header, host_header)
    return True


@web.middleware
async def origin_guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """403 for requests that pages of other sites make a browser send here; OPTIONS is answered with nothing."""
    if await _is_foreign(request):
        return web.json_response({"error": "Requests from pages of other sites are refused."}, status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def make_cors(allowed_origin: str) -> Middleware:
    """A middleware that lets pages of *allowed_origin* (``*``: of every site) use this server."""
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
