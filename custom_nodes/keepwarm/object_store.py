"""Results in object storage: S3 and servers that speak its protocol, Google Cloud Storage, Azure."""

import asyncio
import importlib
import io
import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from .entry_format import MAX_ENTRY_BYTES, Blob
from .store_urls import BadUrl, StoreUrl
from .units import MIB

log = logging.getLogger(__name__)

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
            self._store = _open(url)
        except ImportError:
            raise BadUrl(f"{url.scheme}:// needs the package obstore: pip install 'obstore>=0.6'") from None

    async def get_entry(self, key: str) -> memoryview | None:
        """The entry under *key*."""
        try:
            answer = await self._obstore.get_async(self._store, _entry_path(key))
            if answer.meta["size"] > MAX_ENTRY_BYTES:
                log.warning("The entry %s has %d bytes, more than an entry can have", _entry_path(key), answer.meta["size"])
                return None
            return memoryview(await answer.bytes_async())
        except (FileNotFoundError, self._errors.NotFoundError):
            return None

    async def get_blobs(self, wanted: Mapping[str, int]) -> dict[str, Any] | None:
        """Every blob, its ranges side by side."""
        found = await asyncio.gather(*(self._get_blob(digest, size) for digest, size in wanted.items()))
        return None if None in found else dict(zip(wanted, found))

    async def put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        """Create the blobs that are not there, then write the entry."""
        for blob in blobs:
            await self._put_blob(blob)
        await self._obstore.put_async(self._store, _entry_path(key), b"".join(entry), use_multipart=False)

    async def discard(self, digests: Iterable[str]) -> None:
        """Delete damaged blobs."""
        for digest in digests:
            await self._obstore.delete_async(self._store, _blob_path(digest))

    async def aclose(self) -> None:
        """Connections are the library's own."""

    async def _get_blob(self, digest: str, size: int) -> bytearray | None:
        data = bytearray(size)
        starts = list(range(0, size, PART_BYTES))
        try:
            ranges = await self._obstore.get_ranges_async(
                self._store, _blob_path(digest), starts=starts, ends=[min(start + PART_BYTES, size) for start in starts], coalesce=0
            )
        except (FileNotFoundError, self._errors.NotFoundError):
            return None
        for start, part in zip(starts, ranges):
            view = memoryview(part)
            if start + view.nbytes > size:
                return None
            data[start : start + view.nbytes] = view
        return data

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
