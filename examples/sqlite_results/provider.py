"""The cache provider: what the server calls, and the table that answers.

The server gives a key (64 hexadecimal digits) that is equal for equal work: equal node classes with equal inputs, up to the first
node. So a provider is a table from keys to results and needs to know nothing of prompts.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from comfy_api.latest import Caching

from .values import NotPlainError, decode, encode

log = logging.getLogger(__name__)

CAPACITY_BYTES = 2_000_000_000

_SCHEMA = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, used_s REAL, described TEXT, tensors BLOB)"
_LEAST_RECENTLY_USED = """
    DELETE FROM results WHERE key IN (
        SELECT key FROM (
            SELECT key, SUM(LENGTH(described) + LENGTH(tensors)) OVER (ORDER BY used_s DESC, key) AS up_to_here FROM results
        ) WHERE up_to_here > ?
    )
"""


class ResultTable:
    """Results by key in an SQLite file, at most *capacity_bytes* of them; what was used longest ago goes first.

    Every call blocks on the disk. Use it on one thread. Raises ``sqlite3.Error`` when the file cannot be read or written.
    """

    def __init__(self, path: str, capacity_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")  # readers and a writer of other servers do not wait for each other
        self._database.execute(_SCHEMA)

    def find(self, key: str) -> tuple[str, bytes] | None:
        """The text and the bytes kept under *key*, or None; marks them as used."""
        with self._database:
            self._database.execute("UPDATE results SET used_s = ? WHERE key = ?", (self._clock(), key))
            return self._database.execute("SELECT described, tensors FROM results WHERE key = ?", (key,)).fetchone()

    def keep(self, key: str, described: str, tensors: bytes) -> None:
        """Keep a text and bytes under *key* and drop what no longer fits."""
        with self._database:
            row = (key, self._clock(), described, tensors)
            self._database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)
            self._database.execute(_LEAST_RECENTLY_USED, (self._capacity_bytes,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class SqliteProvider(Caching.CacheProvider):
    """Answers lookups from a :class:`ResultTable` and stores into it.

    The server calls the two coroutines on an event loop that they must not block, so a thread of the provider's own does the work; it
    alone touches the table, which it opens at the first call. An exception from either coroutine counts as a miss and is logged by the
    server, so none is caught here.
    """

    def __init__(self, path: str, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._path = path
        self._capacity_bytes = capacity_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-results")
        self._table: ResultTable | None = None

    async def on_lookup(self, context: Caching.CacheContext) -> Caching.CacheValue | None:
        """The result kept for *context*, or None."""
        found = await self._on_thread(self._find, context.cache_key_hash)
        if found is None:
            return None
        log.info("result of node %s (%s) found in %s", context.node_id, context.class_type, self._path)
        return Caching.CacheValue(outputs=found["outputs"], ui=found["ui"])

    async def on_store(self, context: Caching.CacheContext, value: Caching.CacheValue) -> None:
        """Keep *value*, unless there is something in it that only this process can use."""
        try:
            await self._on_thread(self._keep, context.cache_key_hash, {"outputs": value.outputs, "ui": value.ui})
        except NotPlainError as reason:
            log.debug("result of node %s (%s) is not kept: %s", context.node_id, context.class_type, reason)

    async def _on_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _find(self, key: str) -> dict[str, Any] | None:
        row = self._opened().find(key)
        return None if row is None else decode(*row)

    def _keep(self, key: str, value: dict[str, Any]) -> None:
        self._opened().keep(key, *encode(value))

    def _opened(self) -> ResultTable:
        if self._table is None:
            self._table = ResultTable(self._path, self._capacity_bytes)
        return self._table
