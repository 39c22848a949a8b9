"""HTTP to the servers: asking all of them, and passing requests on."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from app.files.body_budget import bodies_of

CONNECT_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 30.0
# Describing nodes may take a server so long.
SILENCE_TIMEOUT_S = 310.0
CHUNK_BYTES = 256 * 1024
_PASSED_TO_SERVER = ("Accept", "Comfy-User", "Content-Type", "If-Modified-Since", "If-None-Match", "If-Range", "Range", "Sec-Fetch-Dest")
_PASSED_TO_CLIENT = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
    "Retry-After",
    "Vary",
    "X-Content-Type-Options",
)


class ServerSilent(ConnectionError):
    """A server could not be asked; the message says which and what happened."""


class Upstream:
    """One pool of connections to all servers, used on the gateway's loop and closed there."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool; the first call makes it. Bodies are not unpacked."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                trust_env=False,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._session

    async def close(self) -> None:
        """End all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, base_url: str, path: str, timeout_s: float = ASK_TIMEOUT_S) -> tuple[int, bytes]:
        """(status, body) of a GET. Raises :class:`ServerSilent`."""
        return await self._ask("GET", base_url, path, timeout_s)

    async def post(self, base_url: str, path: str, document: Any, timeout_s: float = ASK_TIMEOUT_S) -> tuple[int, bytes]:
        """(status, body) of a POST of JSON. Raises :class:`ServerSilent`."""
        return await self._ask("POST", base_url, path, timeout_s, json=document)

    async def patch(self, base_url: str, path: str, document: Any, timeout_s: float = ASK_TIMEOUT_S) -> tuple[int, bytes]:
        """(status, body) of a PATCH of JSON. Raises :class:`ServerSilent`."""
        return await self._ask("PATCH", base_url, path, timeout_s, json=document)

    async def get_json(self, base_url: str, path: str, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """The JSON of a GET, None for an answer with another status than 200. Raises :class:`ServerSilent`."""
        status, body = await self.get(base_url, path, timeout_s)
        try:
            return json.loads(body) if status == 200 else None
        except ValueError as error:
            raise ServerSilent(f"GET {base_url}{path} was not answered with JSON: {error}") from None

    async def get_json_from_all(self, urls: Mapping[str, str], path: str, timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any]:
        """The answers by server, without those that could not be asked or had none."""
        answers = await asyncio.gather(*(self.get_json(url, path, timeout_s) for url in urls.values()), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ServerSilent):
                raise answer
        told = zip(urls, answers, strict=True)
        return {server_id: answer for server_id, answer in told if answer is not None and not isinstance(answer, BaseException)}

    async def _ask(self, method: str, base_url: str, path: str, timeout_s: float, **more: Any) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self.session.request(method, base_url + path, timeout=timeout, **more) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServerSilent(f"{method} {base_url}{path}: {error or type(error).__name__}") from error

    async def pass_on(self, request: web.Request, base_url: str, path_qs: str | None = None) -> web.StreamResponse:
        """The answer of that server to *request*, or to its method and headers with another path and query (both encoded).

        What it says about the body, the file and ranges is passed on; nothing else. A server that cannot be reached is a 502.
        """
        target = URL(base_url + (path_qs or request.rel_url.raw_path_qs), encoded=True)
        headers = {name: request.headers[name] for name in _PASSED_TO_SERVER if name in request.headers}
        with bodies_of(request).share() as share:
            body = await share.read(request) if request.body_exists else None
            try:
                async with self.session.request(request.method, target, headers=headers, data=body, allow_redirects=False) as answer:
                    return await _copied(request, answer)
            except (aiohttp.ClientError, TimeoutError) as error:
                if request.transport is None or request.transport.is_closing():
                    raise
                raise web.HTTPBadGateway(text=f"The server that would answer this cannot be reached: {error or 'it is silent'}") from None


async def _copied(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    for name in _PASSED_TO_CLIENT:
        if name in answer.headers:
            response.headers[name] = answer.headers[name]
    await response.prepare(request)
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        await response.write(chunk)
    await response.write_eof()
    return response
