"""Results in a folder that several processes may share.

Blobs lie under the digest of their bytes, so the same tensor is kept once; entries lie under their key. A file appears by a rename when
it is complete, blobs before the entry that names them: whatever is interrupted leaves nothing but a temporary file. The modification
time is the last use; when the folder grows over its cap, what was used longest ago goes first.
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .blob_store import StoreFull
from .entry_format import MAX_ENTRY_BYTES, Blob
from .units import GIB, megabytes

log = logging.getLogger(__name__)

DEFAULT_CAP_BYTES = 50 * GIB
# After an eviction the folder has this share of its cap, so that not every store evicts.
KEEP_SHARE = 0.9
# Other processes write too, so the folder is counted again after this share of the cap was written from here.
RECOUNT_SHARE = 0.05
ABANDONED_S = 3600.0
TOUCH_AFTER_S = 60.0


class FileStore:
    """A ``BlobStore``. File work is done on worker threads; the counting of bytes is shared by them under a lock."""

    name = "file"

    def __init__(self, folder: str, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        """*folder* is made when something is stored; ``v1`` in it belongs to this store alone."""
        self._root = os.path.join(folder, "v1")
        self._cap_bytes = cap_bytes
        self._lock = threading.Lock()
        self._total_bytes: int | None = None
        self._uncounted_bytes = 0

    async def get_entry(self, key: str) -> bytearray | None:
        """The entry under *key*."""
        return await asyncio.to_thread(self._read, self._path("entries", key), MAX_ENTRY_BYTES, None)

    async def get_blobs(self, wanted: Mapping[str, int]) -> dict[str, Any] | None:
        """Every blob, read into memory of its own."""
        found = await asyncio.gather(
            *(asyncio.to_thread(self._read, self._path("blobs", digest), size, size) for digest, size in wanted.items())
        )
        return None if None in found else dict(zip(wanted, found))

    async def put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        """Write the blobs that are not there, then the entry. Raises ``OSError``, ``StoreFull`` for more than the cap."""
        await asyncio.to_thread(self._put, key, entry, blobs)

    async def discard(self, digests: Iterable[str]) -> None:
        """Remove damaged blobs."""
        for digest in digests:
            await asyncio.to_thread(self._remove, self._path("blobs", digest))

    async def aclose(self) -> None:
        """Nothing is open."""

    def _path(self, kind: str, name: str) -> str:
        if not name or not set(name) <= set("0123456789abcdef"):
            raise ValueError(f"{name[:80]!r} is not a digest")
        return os.path.join(self._root, kind, name[:2], name)

    def _read(self, path: str, max_bytes: int, exact_bytes: int | None) -> bytearray | None:
        try:
            with open(path, "rb", buffering=0, opener=_without_waiting) as stream:
                state = os.fstat(stream.fileno())
                is_wrong = state.st_size > max_bytes or (exact_bytes is not None and state.st_size != exact_bytes)
                if is_wrong or not stat.S_ISREG(state.st_mode):
                    # Damaged. Removed, or it could not be stored again.
                    log.warning("%s has %d bytes instead of %s and is removed", path, state.st_size, exact_bytes)
                    self._remove(path)
                    return None
                data = bytearray(state.st_size)
                view = memoryview(data)
                while view and (count := stream.readinto(view)):
                    view = view[count:]
            if view:
                return None
            if time.time() - state.st_mtime > TOUCH_AFTER_S:
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            log.warning("%s is not a plain file and is removed", path)
            self._remove(path)
            return None
        return data

    def _put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        size = sum(memoryview(part).nbytes for part in entry) + sum(blob.size for blob in blobs)
        if size > self._cap_bytes * KEEP_SHARE:
            raise StoreFull(f"a result of {size} bytes does not fit below the cap of {self._cap_bytes} bytes (max_gb)")
        self._make_room(size)
        for blob in blobs:
            path = self._path("blobs", blob.digest)
            try:
                present = os.stat(path).st_size == blob.size
            except FileNotFoundError:
                present = False
            if present:
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
            else:
                self._write(path, [blob.data])
        self._write(self._path("entries", key), entry)

    def _write(self, path: str, parts: list[Any]) -> None:
        temporary = os.path.join(self._root, "tmp", uuid.uuid4().hex)
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(temporary, "xb", buffering=0) as stream:
                for part in parts:
                    view = memoryview(part).cast("B")
                    while view:
                        view = view[stream.write(view) :]
                written = stream.tell()
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        with self._lock:
            self._uncounted_bytes += written

    def _make_room(self, size: int) -> None:
        """Count when it may be necessary, evict when it is. One thread at a time; other processes may do the same, to no harm."""
        with self._lock:
            if self._total_bytes is not None and self._uncounted_bytes + size <= self._cap_bytes * RECOUNT_SHARE:
                return
            files = sorted(self._files())
            total = sum(file_bytes for _, file_bytes, _ in files)
            if total + size > self._cap_bytes:
                total -= self._evict(files, total + size - int(self._cap_bytes * KEEP_SHARE))
            self._total_bytes = total
            self._uncounted_bytes = 0

    def _evict(self, files: list[tuple[float, int, str]], excess: int) -> int:
        freed = 0
        for _, file_bytes, path in files:
            if freed >= excess:
                break
            if self._remove(path):
                freed += file_bytes
        log.info("%s: removed %s that were used longest ago to make room", self._root, megabytes(freed))
        return freed

    def _remove(self, path: str) -> bool:
        try:
            os.unlink(path)
        except OSError:
            return False
        return True

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(last use, bytes, path) of every entry and blob; temporary files that were left behind are removed on the way."""
        for current, _, names in os.walk(self._root):
            is_temporary = os.path.basename(current) == "tmp"
            for name in names:
                path = os.path.join(current, name)
                try:
                    state = os.stat(path)
                except OSError:
                    continue
                if is_temporary and time.time() - state.st_mtime > ABANDONED_S:
                    self._remove(path)
                else:
                    yield (time.time() if is_temporary else state.st_mtime), state.st_size, path


def _without_waiting(path: str, flags: int) -> int:
    """Open what should be a plain file: a pipe put there must not block a thread, and a link must not lead elsewhere."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
