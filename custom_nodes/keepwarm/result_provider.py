"""The cache provider: results as sealed entries in a ``BlobStore``."""

import asyncio
import logging
import traceback
from typing import Any

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue, _estimate_value_size

from .blob_store import BlobStore
from .entry_format import MAX_ENTRY_BYTES, MAX_HEADER_BYTES, Damaged, Opened, Rejected, Sealer, read_value
from .intake import Intake, IntakeGate
from .measures import Measures
from .units import GIB
from .value_codec import NotRepresentable

log = logging.getLogger(__name__)

# Smaller results are encoded and checked on the loop itself.
OFFLOAD_BYTES = 64 << 10


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
        self.is_paused = False  # neither gives nor takes
        self._sealer = sealer or Sealer()
        self._gate = IntakeGate()

    def should_cache(self, context: CacheContext, value: CacheValue | None = None) -> bool:
        """Everything is looked up; what fits is stored, unless the provider only reads. Nothing while it is paused."""
        if self.is_paused:
            return False
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
        except Exception as error:
            # The value's fault, not that of the store, which is not to be left alone for it.
            log.warning("The result of node %s (%s) cannot be written: %r", context.node_id, context.class_type, error)
            return
        with self.measures.store():
            await self.store.put(context.cache_key_hash, sealed.entry, sealed.blobs)
        self.measures.add(bytes_stored=sum(memoryview(part).nbytes for part in sealed.entry) + sum(blob.size for blob in sealed.blobs))

    def renew(self) -> None:
        """Leave the connections that there are, and make new ones at the next use: after a restore nobody is at their other end."""
        self.store.renew()

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()

    async def _find(self, context: CacheContext) -> CacheValue | None:
        wanted: dict[str, int] = {}
        async with self._gate.lookup(min(MAX_ENTRY_BYTES, self.max_value_bytes + MAX_HEADER_BYTES)) as intake:
            try:
                return await self._fetch(context, intake, wanted)
            except (Rejected, MemoryError) as reason:
                self.measures.add(rejected=1)
                if isinstance(reason, Damaged) and not self.read_only:
                    await self.store.discard(wanted)
                told = "there is no memory for it" if isinstance(reason, MemoryError) else reason
                log.warning("An entry in %s for node %s (%s) is not used: %s", self.url, context.node_id, context.class_type, told)
                _let_go_of_what_was_read(reason)
                return None

    async def _fetch(self, context: CacheContext, intake: Intake, wanted: dict[str, int]) -> CacheValue | None:
        """The value, or None; *wanted* is told the blobs that it needs. Raises ``Rejected``, ``MemoryError`` and what the store raises."""
        entry = await self.store.get_entry(context.cache_key_hash, intake)
        if entry is None:
            return None
        opened = await _guarded(memoryview(entry).nbytes, self._sealer.open, context.cache_key_hash, entry)
        if opened.total_bytes > self.max_value_bytes:
            raise Rejected(f"its tensors take {opened.total_bytes} bytes, more than {self.max_value_bytes}")
        wanted.update(opened.wanted)
        await intake.expect(opened.total_bytes)
        blobs: dict[str, Any] | None = await self.store.get_blobs(opened.wanted) if opened.wanted else {}
        if blobs is None:
            return None
        outputs, ui = await _guarded(opened.total_bytes + memoryview(entry).nbytes, _read_pair, opened, blobs)
        return CacheValue(outputs, ui)


def _let_go_of_what_was_read(error: BaseException | None) -> None:
    """Empty the calls that *error* ended: they would hold the entry's bytes, past its turn, until garbage is collected."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _read_pair(opened: Opened, blobs: dict[str, Any]) -> tuple[Any, Any]:
    outputs, ui = read_value(opened, blobs)
    return outputs, ui


async def _guarded(size: int, function: Any, *arguments: Any) -> Any:
    """What *function* makes of bytes from a store. Raises ``Rejected`` for whatever it cannot make anything of, ``MemoryError``."""
    try:
        return await _offload(size, function, *arguments)
    except (Rejected, MemoryError):
        raise
    except Exception as error:
        raise Rejected(f"it cannot be read: {type(error).__name__}: {error}") from error


async def _offload(size: int, function: Any, *arguments: Any) -> Any:
    return function(*arguments) if size < OFFLOAD_BYTES else await asyncio.to_thread(function, *arguments)
