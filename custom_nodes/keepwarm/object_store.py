"""Results in object storage: S3 and servers that speak its protocol, Google Cloud Storage, Azure."""

import asyncio
import importlib
import io
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from .entry_format import START_BYTES, Blob, Damaged, Rejected, check_start
from .free_memory import fresh_memory
from .intake import SMALL_BYTES, Intake
from .store_urls import BadUrl, StoreUrl
from .units import MIB

PART_BYTES = 16 * MIB
CONCURRENT_PARTS = 8
RETRY_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60


class ObjectStore:
    """A ``BlobStore`` through obstore. Credentials come from the environment as the vendors' tools read them.

    Blobs are created once and never replaced. Large ones go up in parts and come down in ranges, several at a time.
    """

    name = "objects"

    def __init__(self, url: StoreUrl) -> None:
        """Options: ``endpoint`` (a MinIO-like server), ``region``, ``account`` (Azure). Raises ``BadUrl``."""
        try:
            self._obstore = importlib.import_module("obstore")
            self._errors = importlib.import_module("obstore.exceptions")
            self._url = url
            self._store = _open(url)
        except ImportError:
            raise BadUrl(f"{url.scheme}:// needs the package obstore: pip install 'obstore>=0.6'") from None

    async def get_entry(self, key: str, intake: Intake) -> bytearray | None:
        """The entry under *key*; taken as it comes, so that nothing more is read once it is known to be none."""
        try:
            answer = await self._obstore.get_async(self._store, _entry_path(key))
        except (FileNotFoundError, self._errors.NotFoundError):
            return None
        size = answer.meta["size"]
        await intake.expect_entry(size)
        entry, is_checked = bytearray(), False
        async for part in answer.stream(min_chunk_size=SMALL_BYTES):
            entry += memoryview(part)
            if len(entry) > size:
                raise Rejected(f"more than the announced {size} bytes arrive")
            if not is_checked and len(entry) >= START_BYTES:
                check_start(entry, size)
                is_checked = True
        return entry

    async def get_blobs(self, wanted: Mapping[str, int]) -> dict[str, Any] | None:
        """Every blob, its ranges side by side."""
        slots = asyncio.Semaphore(CONCURRENT_PARTS)
        found = {digest: fresh_memory(size) for digest, size in wanted.items()}
        parts = [
            asyncio.ensure_future(self._get_part(digest, start, data[start : start + PART_BYTES], slots))
            for digest, data in found.items()
            for start in range(0, len(data), PART_BYTES)
        ]
        try:
            await asyncio.gather(*parts)
        except (FileNotFoundError, self._errors.NotFoundError):
            return None
        finally:
            for part in parts:
                part.cancel()
        return found

    async def put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        """Create the blobs that are not there, then write the entry."""
        for blob in blobs:
            await self._put_blob(blob)
        await self._obstore.put_async(self._store, _entry_path(key), b"".join(entry), use_multipart=False)

    async def discard(self, digests: Iterable[str]) -> None:
        """Delete damaged blobs."""
        for digest in digests:
            await self._obstore.delete_async(self._store, _blob_path(digest))

    def renew(self) -> None:
        """A new client, with connections of its own."""
        self._store = _open(self._url)

    async def aclose(self) -> None:
        """Connections are the library's own."""

    async def _get_part(self, digest: str, start: int, room: memoryview, slots: asyncio.Semaphore) -> None:
        """Fill *room* with the blob's bytes from *start* on. Raises ``Damaged`` where more or fewer arrive."""
        async with slots:
            span = (start, start + room.nbytes)
            answer = await self._obstore.get_async(self._store, _blob_path(digest), options={"range": span})
            filled = 0
            async for part in answer.stream(min_chunk_size=SMALL_BYTES):
                view = memoryview(part)
                if filled + view.nbytes > room.nbytes:
                    raise Damaged("more bytes of a tensor arrive than were asked for")
                room[filled : filled + view.nbytes] = view
                filled += view.nbytes
        if filled < room.nbytes:
            raise Damaged("the bytes of a tensor end early")

    async def _put_blob(self, blob: Blob) -> None:
        path = _blob_path(blob.digest)
        try:
            known = await self._obstore.head_async(self._store, path)
            if known["size"] == blob.size:
                return
        except (FileNotFoundError, self._errors.NotFoundError):
            known = None
        view = memoryview(blob.data).cast("B")
        if known is None and blob.size <= PART_BYTES:
            try:
                await self._obstore.put_async(self._store, path, bytes(view), mode="create", use_multipart=False)
            except self._errors.AlreadyExistsError:
                return
            return
        await self._obstore.put_async(
            self._store, path, io.BytesIO(view), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=CONCURRENT_PARTS
        )


def _entry_path(key: str) -> str:
    return f"v1/entries/{key[:2]}/{key}"


def _blob_path(digest: str) -> str:
    return f"v1/blobs/{digest[:2]}/{digest}"


def _open(url: StoreUrl) -> Any:
    stores = importlib.import_module("obstore.store")
    endpoint = url.options.get("endpoint")
    common: dict[str, Any] = {
        "prefix": url.path.strip("/") or None,
        "client_options": {
            "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
            "connect_timeout": timedelta(seconds=5),
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
        },
        "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S)},
    }
    try:
        if url.scheme == "s3":
            given = {"endpoint": endpoint, "region": url.options.get("region")}
            return stores.S3Store(url.host, **{name: value for name, value in given.items() if value}, **common)
        if url.scheme == "gs":
            return stores.GCSStore(url.host, **common)
        given = {"account_name": url.options.get("account"), "endpoint": endpoint}
        return stores.AzureStore(url.host, **{name: value for name, value in given.items() if value}, **common)
    except Exception as error:
        raise BadUrl(f"{url.place}: {error}") from None
