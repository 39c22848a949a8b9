"""How many bytes of request bodies may be in memory at once, over all clients."""

import asyncio
import contextlib
from collections.abc import Iterator

from aiohttp import web

from comfy.ram_model_cache.host_memory import HostMemory
from comfy.units import MIB

# A body is read in one go; who sends slower than this holds a connection for nothing.
BODY_LIMIT_S = 300.0
MOST_BYTES = 512 * MIB
# Of the RAM that is free when the first body comes: reading and parsing one takes several times its size.
SHARE_OF_FREE_RAM = 0.1


class BodyBudget:
    """The bytes that are taken, on the server's loop. A body that does not fit any more is refused, not kept waiting: else a few that
    arrive slowly would keep out all others."""

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes
        self.taken_bytes = 0

    @contextlib.contextmanager
    def share(self) -> Iterator["BodyShare"]:
        """Something to take bytes through; they are given back at the end of the block."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self.taken_bytes -= share.taken_bytes

    @property
    def most_bytes(self) -> int:
        """The limit: ``MOST_BYTES``, or less where little RAM is free."""
        if self._most_bytes is None:
            self._most_bytes = int(HostMemory().available_bytes() * SHARE_OF_FREE_RAM)
        return min(MOST_BYTES, self._most_bytes)


class BodyShare:
    """What one request has taken of a budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.taken_bytes = 0

    def take(self, count_bytes: int) -> None:
        """Take so many more. Raises ``HTTPServiceUnavailable`` when there are too many large bodies at once."""
        self.taken_bytes += count_bytes
        self._budget.taken_bytes += count_bytes
        # One body alone may have what its own limit grants.
        if self._budget.taken_bytes > max(self._budget.most_bytes, self.taken_bytes):
            raise web.HTTPServiceUnavailable(
                text=f"Request bodies of {self._budget.most_bytes // MIB} MiB are being read already; try again.",
                headers={"Retry-After": "5"},
            )

    async def read(self, request: web.Request) -> bytes:
        """The body of *request*. Raises as ``take`` does, ``HTTPRequestEntityTooLarge`` and ``HTTPRequestTimeout``."""
        known = request._read_bytes
        if known is not None:
            return known
        max_bytes, pieces, size = request.client_max_size, list[bytes](), 0
        try:
            async with asyncio.timeout(BODY_LIMIT_S):
                while piece := await request.content.readany():
                    self.take(len(piece))
                    size += len(piece)
                    if max_bytes and size > max_bytes:
                        raise web.HTTPRequestEntityTooLarge(max_bytes)
                    pieces.append(piece)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"The request body did not arrive within {BODY_LIMIT_S:.0f} s.") from None
        request._read_bytes = b"".join(pieces)
        return request._read_bytes


# The budget of an application: whoever makes one that reads bodies puts a ``BodyBudget`` there.
BODIES = web.AppKey("bodies", BodyBudget)


def bodies_of(request: web.Request) -> BodyBudget:
    """The budget of the application that *request* came to, or of the one that this is mounted in. Raises ``KeyError`` without one."""
    budget: BodyBudget = request.config_dict[BODIES]
    return budget
