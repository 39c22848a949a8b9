"""Uploaded files in the places where servers share results (``--cache-provider``), found by what they contain.

A gateway puts them there, and whoever has to bring one to a server finds it there without asking that gateway. What is not there, or in a
place that fails, is fetched from the gateway.
"""

import argparse
import asyncio
import importlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

log = logging.getLogger(__name__)

PACK = "custom_nodes.keepwarm"
OFFER_LIMIT_S, FETCH_LIMIT_S = 30.0, 15.0
# A place that failed is left alone for so long.
REST_S = 15.0
MOST_REMEMBERED = 10_000


def places_in(flags: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The URLs that servers with these *flags* and this *environment* share results through, each once."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--cache-provider", action="append", default=[])
    known, _ = parser.parse_known_args(list(flags))
    return tuple(dict.fromkeys([*known.cache_provider, *environment.get("KEEPWARM_CACHE_PROVIDERS", "").split()]))


@dataclass(slots=True)
class _Place:
    url: str
    store: Any
    is_read_only: bool
    max_bytes: int
    rests_until_s: float = 0.0


class SharedUploads:
    """Over the places at *urls*, in that order; without any it does nothing. On one loop; ``close`` it there. Raises nothing: a place
    that fails or cannot be used is named in a warning and passed over."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._urls, self._clock = tuple(urls), clock
        self._opening: asyncio.Task[list[_Place]] | None = None
        self._offered: dict[str, None] = {}

    async def offer(self, digest: str, size_bytes: int, path: str) -> bool:
        """Put the file at *path*, whose content has that blake3, where it can be shared; whether it is there."""
        if not self._urls or not size_bytes:
            return False
        if digest in self._offered:
            return True
        places = [one for one in await self._places() if not one.is_read_only and size_bytes <= one.max_bytes]
        if not places:
            return False
        content = await asyncio.to_thread(_read, path, digest)
        if content is None:
            return False
        stored = [await self._try(place, OFFER_LIMIT_S, self._put(place, digest, content)) for place in places]
        if any(stored):
            self._offered[digest] = None
            if len(self._offered) > MOST_REMEMBERED:
                del self._offered[next(iter(self._offered))]
        return any(stored)

    async def fetch(self, digest: str, size_bytes: int) -> bytes | None:
        """The content with that blake3 and size; None where it has to be fetched elsewhere."""
        if not self._urls or not size_bytes:
            return None
        for place in await self._places():
            found = await self._try(place, FETCH_LIMIT_S, place.store.get_blobs({digest: size_bytes}))
            if found:
                content = bytes(found[digest])
                if await asyncio.to_thread(_digest_of, content) == digest:
                    return content
                log.warning("%s holds something else than the upload %s; it is fetched from the gateway", place.url, digest)
                await self._try(place, FETCH_LIMIT_S, place.store.discard([digest]))
        return None

    async def close(self) -> None:
        """End connections."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
            if not self._opening.cancelled() and self._opening.exception() is None:
                await asyncio.gather(*(place.store.aclose() for place in self._opening.result()), return_exceptions=True)

    async def _places(self) -> list[_Place]:
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(asyncio.to_thread(_open, self._urls), name="open-shared-uploads")
        now_s = self._clock()
        return [place for place in await asyncio.shield(self._opening) if place.rests_until_s <= now_s]

    async def _put(self, place: _Place, digest: str, content: bytes) -> bool:
        format_ = importlib.import_module(f"{PACK}.entry_format")
        entry = format_.Sealer().seal(digest, "fleet.upload", {"bytes": len(content)}).entry
        await place.store.put(digest, entry, [format_.Blob(digest, content)])
        return True

    async def _try(self, place: _Place, limit_s: float, work: Awaitable[Any]) -> Any:
        """The result of *work*; None when it fails."""
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except Exception as error:
            place.rests_until_s = self._clock() + REST_S
            log.warning("Uploads do not go through %s for now: %s: %s", place.url, type(error).__name__, error)
            return None


def _open(urls: Sequence[str]) -> list[_Place]:
    """The places that can be used. Imports the pack, which takes a while."""
    try:
        urls_, stores = importlib.import_module(f"{PACK}.store_urls"), importlib.import_module(f"{PACK}.stores")
    except ImportError as error:
        log.warning("Uploads go to servers directly: the node pack custom_nodes/keepwarm cannot be imported: %s", error)
        return []
    places = []
    for text in urls:
        try:
            url = urls_.parse_url(text)
            store = stores.open_store(url)
            places.append(_Place(urls_.redacted(text), store, url.is_read_only, stores.max_value_bytes(url, store)))
        except ValueError as error:
            log.warning("Uploads do not go through %s: %s", urls_.redacted(text), error)
    return places


def _read(path: str, digest: str) -> bytes | None:
    """The file, if it still is what *digest* says."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return None
    return content if _digest_of(content) == digest else None


def _digest_of(content: bytes) -> str:
    return blake3(content).hexdigest()
