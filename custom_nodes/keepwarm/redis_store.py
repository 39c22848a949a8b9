"""Results in Redis or Valkey. Blobs are cut into chunks, so that no command keeps the server busy for long.

What a name holds that is no text (``WRONGTYPE``) is a miss and can be stored over. A server that sends more than was asked for
is cut off.
"""

import asyncio
import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from .bounded_connection import bounded
from .entry_format import Blob, Damaged, Rejected, check_start
from .free_memory import fresh_memory
from .intake import SMALL_BYTES, Intake
from .store_urls import BadUrl, StoreUrl
from .units import MIB

CHUNK_BYTES = 4 * MIB
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 32


class RedisStore:
    """A ``BlobStore``. Connects at the first use, and again after the server was away; raises what redis-py raises."""

    name = "redis"

    def __init__(self, url: StoreUrl, environment: Mapping[str, str] | None = None) -> None:
        """Options: ``ttl`` in seconds, ``db``, ``prefix``. Raises ``BadUrl`` without the library or for an unreadable password file."""
        self._redis = _library()
        self._client: Any = None
        self._is_stale = False
        self._closing: set[asyncio.Task[None]] = set()
        self._url = url
        self._ttl_s = int(url.number("ttl", 0)) or None
        self._prefix = url.options.get("prefix", "keepwarm")
        self._environment = os.environ if environment is None else environment
        self._credentials = _credentials(self._environment)

    async def get_entry(self, key: str, intake: Intake) -> bytes | bytearray | None:
        """The entry under *key*: its beginning, and more of it only if that is the beginning of an entry."""
        name = self._entry_name(key)
        first = await self._get(name, 0, SMALL_BYTES)
        if not first:
            return None
        check_start(first)
        if len(first) < SMALL_BYTES:
            return first
        await intake.expect(intake.max_entry_bytes)
        entry, part = bytearray(first), first
        while part and len(entry) <= intake.max_entry_bytes:
            part = await self._get(name, len(entry), CHUNK_BYTES)
            entry += part
        if len(entry) > intake.max_entry_bytes:
            raise Rejected(f"it has more than the {intake.max_entry_bytes} bytes that it may have")
        return entry

    async def get_blobs(self, wanted: Mapping[str, int]) -> dict[str, Any] | None:
        """Every blob, put together from its chunks."""
        found: dict[str, Any] = {}
        for digest, size in wanted.items():
            data = fresh_memory(size)
            for number, start in enumerate(range(0, size, CHUNK_BYTES)):
                try:
                    chunk = await self._get(self._chunk_name(digest, number), 0, CHUNK_BYTES)
                except Rejected as reason:
                    raise Damaged(f"a tensor is missing: {reason}") from None
                if not chunk:
                    return None
                # One of a wrong length leaves bytes that the digest does not fit.
                data[start : start + CHUNK_BYTES] = chunk[: len(data) - start].ljust(min(CHUNK_BYTES, len(data) - start))
            found[digest] = data
        return found

    async def put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        """Set the chunks that are not there, then the entry."""
        client = self._connected()
        for blob in blobs:
            view = memoryview(blob.data).cast("B")
            names = [self._chunk_name(blob.digest, number) for number in range(-(-blob.size // CHUNK_BYTES))]
            if await client.exists(*names) < len(names):
                for number, name in enumerate(names):
                    await client.set(name, view[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES], ex=self._ttl_s)
            elif self._ttl_s is not None:
                for name in names:
                    await client.expire(name, self._ttl_s)
        await client.set(self._entry_name(key), b"".join(entry), ex=self._ttl_s)

    async def discard(self, digests: Iterable[str]) -> None:
        """Delete the first chunk of each damaged blob; the others are replaced with it."""
        for digest in digests:
            await self._connected().delete(self._chunk_name(digest, 0))

    def renew(self) -> None:
        """Use new connections from now on; the old ones are closed at the next use."""
        self._is_stale = True

    async def aclose(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _get(self, name: str, start: int, count: int) -> bytes:
        """Up to *count* bytes from *start* on; empty for a name that is not there. Raises ``Rejected`` for one that holds no text."""
        try:
            part = await self._connected().getrange(name, start, start + count - 1)
        except importlib.import_module("redis.exceptions").ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise Rejected("its name holds a list, a hash or the like") from None
            raise
        if part is None:
            return b""
        if not isinstance(part, bytes) or len(part) > count:
            raise OSError(f"the server answered with {type(part).__name__} where {count} bytes or fewer were asked for")
        return part

    def _entry_name(self, key: str) -> str:
        return f"{self._prefix}:e:{key}"

    def _chunk_name(self, digest: str, number: int) -> str:
        return f"{self._prefix}:b:{digest}:{number}"

    def _connected(self) -> Any:
        if self._is_stale:
            self._is_stale = False
            stale, self._client = self._client, None
            if stale is not None:
                task = asyncio.get_running_loop().create_task(stale.aclose())
                self._closing.add(task)  # the loop refers to its tasks weakly
                task.add_done_callback(self._closing.discard)
        if self._client is None:
            retry = importlib.import_module("redis.asyncio.retry").Retry(importlib.import_module("redis.backoff").NoBackoff(), 1)
            pool = self._redis.BlockingConnectionPool.from_url(
                self._url.place,
                db=int(self._url.number("db", _path_db(self._url))),
                max_connections=MAX_CONNECTIONS,
                timeout=ANSWER_TIMEOUT_S,
                socket_timeout=ANSWER_TIMEOUT_S,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                retry=retry,
                **self._credentials,
            )
            pool.connection_class = bounded(pool.connection_class, CHUNK_BYTES)
            self._client = self._redis.Redis(connection_pool=pool)
        return self._client


def _path_db(url: StoreUrl) -> int:
    return int(url.path.strip("/") or 0) if url.scheme != "unix" and url.path.strip("/").isdecimal() else 0


def _library() -> Any:
    try:
        return importlib.import_module("redis.asyncio")
    except ImportError:
        raise BadUrl("Redis needs the package redis: pip install 'redis>=5'") from None


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """User name and password from the environment; the password may lie in a file. Raises ``BadUrl``."""
    found = {
        name: environment[variable]
        for name, variable in (("username", "KEEPWARM_REDIS_USERNAME"), ("password", "KEEPWARM_REDIS_PASSWORD"))
        if environment.get(variable)
    }
    path = environment.get("KEEPWARM_REDIS_PASSWORD_FILE")
    if path:
        try:
            with open(path, encoding="utf-8") as stream:
                found["password"] = stream.read().strip()
        except OSError as error:
            raise BadUrl(f"KEEPWARM_REDIS_PASSWORD_FILE={path} cannot be read: {error}") from None
    return found
