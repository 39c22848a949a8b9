"""The cache provider: results as sealed entries in a ``BlobStore``."""

import asyncio
import logging
from typing import Any

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, _estimate_value_size

from .blob_store import BlobStore
from .entry_format import Damaged, Rejected, Sealer, read_value
from .measures import Measures
from .units import GIB, MIB
from .value_codec import NotRepresentable

log = logging.getLogger(__name__)

# Smaller results are encoded and checked on the loop itself.
OFFLOAD_BYTES = MIB // 4


class ResultProvider(CacheProvider):
    """Looks results up in a store and stores them there. Runs on whichever loop calls it, always the same one.

    What cannot be used (damaged, foreign, another format) is a miss and a warning; what the store raises is passed on to the caller.
    """

    def __init__(
        self, store: BlobStore, url: str, sealer: Sealer | None = None, read_only: bool = False, max_value_bytes: int = 1 * GIB
    ) -> None:
        """*url* is shown to people, so it holds no credentials; results larger than *max_value_bytes* are neither kept nor fetched."""
        self.store = store
        self.url = url
        self.read_only = read_only
        self.max_value_bytes = max_value_bytes
        self.measures = Measures()
        self._sealer = sealer or Sealer()

    def should_cache(self, context: CacheContext, value: CacheValue | None = None) -> bool:
        """Everything is looked up; what fits is stored, unless the provider only reads."""
        return value is None or (not self.read_only and _estimate_value_size(value) <= self.max_value_bytes)

    async def on_lookup(self, context: CacheContext) -> CacheValue | None:
        """The stored result, or None."""
        with self.measures.lookup() as lookup:
            value = await self._find(context)
            lookup.found = value is not None
        if value is not None:
            self.measures.add(bytes_fetched=_estimate_value_size(value))
        return value

    async def on_store(self, context: CacheContext, value: CacheValue) -> None:
        """Store the result, unless it has no exact form."""
        try:
            size = _estimate_value_size(value)
            sealed = await _offload(size, self._sealer.seal, context.cache_key_hash, context.class_type, [list(value.outputs), value.ui])
        except NotRepresentable as reason:
            log.debug("The result of node %s (%s) is not stored in %s: %s", context.node_id, context.class_type, self.url, reason)
            return
        with self.measures.store():
            await self.store.put(context.cache_key_hash, sealed.entry, sealed.blobs)
        self.measures.add(bytes_stored=sum(memoryview(part).nbytes for part in sealed.entry) + sum(blob.size for blob in sealed.blobs))

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()

    async def _find(self, context: CacheContext) -> CacheValue | None:
        entry = await self.store.get_entry(context.cache_key_hash)
        if entry is None:
            return None
        try:
            opened = self._sealer.open(context.cache_key_hash, entry)
            size = sum(opened.wanted.values())
            if size > self.max_value_bytes:
                raise Rejected(f"its tensors take {size} bytes, more than {self.max_value_bytes}")
            blobs: dict[str, Any] | None = await self.store.get_blobs(opened.wanted) if opened.wanted else {}
            if blobs is None:
                return None
            outputs, ui = await _offload(size, read_value, opened, blobs)
        except (Rejected, TypeError, ValueError) as reason:
            self.measures.add(rejected=1)
            if isinstance(reason, Damaged) and not self.read_only:
                await self.store.discard(opened.wanted)
            log.warning("An entry in %s for node %s (%s) is not used: %s", self.url, context.node_id, context.class_type, reason)
            return None
        return CacheValue(outputs, ui)


async def _offload(size: int, function: Any, *arguments: Any) -> Any:
    return function(*arguments) if size < OFFLOAD_BYTES else await asyncio.to_thread(function, *arguments)
