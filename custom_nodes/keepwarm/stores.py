"""The store behind a ``--cache-provider`` URL. Imports neither torch nor a server, so that programs beside servers can open it too."""

from typing import Any

from .blob_store import BlobStore
from .file_store import DEFAULT_CAP_BYTES, FileStore
from .object_store import ObjectStore
from .redis_store import RedisStore
from .store_urls import FILE, REDIS, StoreUrl
from .units import GIB, MIB

DEFAULT_MAX_VALUE_MB = {"file": 4096.0, "redis": 512.0, "objects": 2048.0}


def open_store(url: StoreUrl) -> BlobStore:
    """The store at *url*; nothing is connected before it is used. Raises ``ValueError`` for one that cannot be used here."""
    store: Any
    if url.scheme in FILE:
        store = FileStore(url.path, int(url.number("max_gb", DEFAULT_CAP_BYTES / GIB) * GIB), url.is_read_only)
    elif url.scheme in REDIS:
        store = RedisStore(url)
    else:
        store = ObjectStore(url)
    opened: BlobStore = store
    return opened


def max_value_bytes(url: StoreUrl, store: BlobStore) -> int:
    """The largest result that *store* keeps."""
    return int(url.number("max_value_mb", DEFAULT_MAX_VALUE_MB[store.name]) * MIB)
