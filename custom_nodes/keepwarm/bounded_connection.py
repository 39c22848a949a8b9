"""Connections to Redis that take no more bytes per answer than one can have, whatever length a server announces."""

import functools
from typing import Any

# What an answer has besides the bytes that were asked for.
OVERHEAD_BYTES = 64 << 10
# An answer to a command of this pack, or to a greeting, has a few lines; each is looked at on the loop.
MAX_LINES = 1000


class AnswerTooLong(ConnectionError):
    """A server sent more than was asked for."""


class BoundedReader:
    """The stream of a connection; raises ``AnswerTooLong`` instead of reading more than ``allow`` allowed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left_bytes = self._left_lines = 0

    def allow(self, count: int) -> None:
        """From now on *count* bytes in at most ``MAX_LINES`` lines may be read."""
        self._left_bytes, self._left_lines = count, MAX_LINES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, count: int = -1) -> bytes:
        """Up to *count* bytes."""
        return self._counted(await self._stream.read(count))

    async def readline(self) -> bytes:
        """A line; the stream itself bounds its length."""
        self._left_lines -= 1
        if self._left_lines < 0:
            raise AnswerTooLong("the server sends more lines than an answer has")
        return self._counted(await self._stream.readline())

    async def readexactly(self, count: int) -> bytes:
        """*count* bytes, as many as the server announced."""
        if count > self._left_bytes:
            raise AnswerTooLong(f"the server announces {count} bytes, more than were asked for")
        return self._counted(await self._stream.readexactly(count))

    def _counted(self, data: bytes) -> bytes:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise AnswerTooLong("the server sends more than was asked for")
        return data


@functools.cache
def bounded(connection_class: Any, answer_bytes: int) -> Any:
    """*connection_class* of redis-py, with answers of at most *answer_bytes* and what surrounds them."""

    class Bounded(connection_class):
        """Bounds what is read for one answer."""

        _reader: Any

        async def _connect(self) -> None:
            await super()._connect()
            self._reader = BoundedReader(self._reader)

        async def read_response(self, *arguments: Any, **options: Any) -> Any:
            """One answer."""
            if isinstance(self._reader, BoundedReader):
                self._reader.allow(answer_bytes + OVERHEAD_BYTES)
            return await super().read_response(*arguments, **options)

    return Bounded
