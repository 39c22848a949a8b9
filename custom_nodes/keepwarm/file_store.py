"""Results in a folder that several processes may share.

Blobs lie under the digest of their bytes, so the same tensor is kept once; entries lie under their key. A file appears by a rename when
it is complete, blobs before the entry that names them: whatever is interrupted leaves nothing but a temporary file. The modification
time is the last use; when the folder grows over its cap, what was used longest ago goes first.

Below the given folder no link is followed, and nothing is removed but plain files that this layout names: ``v1/entries/ab/ab…``,
``v1/blobs/ab/ab…`` and ``v1/tmp/…``.
"""

import asyncio
import contextlib
import errno
import io
import logging
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .blob_store import StoreFull
from .entry_format import MAX_ENTRY_BYTES, START_BYTES, Blob, check_start
from .free_memory import fresh_memory
from .intake import Intake
from .units import GIB, megabytes

log = logging.getLogger(__name__)

DEFAULT_CAP_BYTES = 50 * GIB
# After an eviction the folder has this share of its cap, so that not every store evicts.
KEEP_SHARE = 0.9
# Other processes write too, so the folder is counted again after this share of the cap was written from here.
RECOUNT_SHARE = 0.05
ABANDONED_S = 3600.0
TOUCH_AFTER_S = 60.0
# How opening or reading ends where something else stands in a file's place: a link, a socket, a folder.
_NO_PLAIN_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)
_DIGEST, _TEMPORARY = re.compile("[0-9a-f]{2,128}"), re.compile("[0-9a-f]{32}")


class FileStore:
    """A ``BlobStore``. File work is done on worker threads; the counting of bytes is shared by them under a lock."""

    name = "file"

    def __init__(self, folder: str, cap_bytes: int = DEFAULT_CAP_BYTES, read_only: bool = False) -> None:
        """*folder* is made when something is stored; ``v1`` in it belongs to this store alone. *read_only*: nothing is removed either."""
        self._root = os.path.join(folder, "v1")
        self.cap_bytes = cap_bytes
        self._read_only = read_only
        self._lock = threading.Lock()
        self._total_bytes: int | None = None
        self._uncounted_bytes, self._counted_s = 0, 0.0

    async def get_entry(self, key: str, intake: Intake) -> memoryview | None:
        """The entry under *key*; its size and its first bytes are looked at before the others are read."""
        path = self._path("entries", key)
        opened = await asyncio.to_thread(self._open_entry, path)
        if opened is None:
            return None
        stream, size, start = opened
        try:
            check_start(start, size)
            await intake.expect_entry(size)
        except BaseException:
            stream.close()
            raise
        # Closed where it is read: this may be cancelled meanwhile.
        return await asyncio.to_thread(_read_and_close, stream, size)

    async def get_blobs(self, wanted: Mapping[str, int]) -> dict[str, Any] | None:
        """Every blob, read into memory of its own."""
        found = await asyncio.gather(*(asyncio.to_thread(self._read, self._path("blobs", digest), size) for digest, size in wanted.items()))
        return None if None in found else dict(zip(wanted, found))

    async def put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        """Write the blobs that are not there, then the entry. Raises ``OSError``, ``StoreFull`` for more than the cap."""
        await asyncio.to_thread(self._put, key, entry, blobs)

    async def discard(self, digests: Iterable[str]) -> None:
        """Remove damaged blobs."""
        for digest in digests:
            await asyncio.to_thread(self._remove, self._path("blobs", digest))

    def used_bytes(self, max_age_s: float) -> int:
        """What its entries and blobs take, counted again if that was done longer than *max_age_s* ago. Blocks; any thread."""
        with self._lock:
            if self._total_bytes is None or time.monotonic() - self._counted_s > max_age_s:
                self._note_count(sum(file_bytes for _, file_bytes, _ in self._files()))
            return (self._total_bytes or 0) + self._uncounted_bytes

    def renew(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def _path(self, kind: str, name: str) -> str:
        if not is_digest(name):
            raise ValueError(f"{name[:80]!r} is not a digest")
        return os.path.join(self._root, kind, name[:2], name)

    def _is_inside(self, path: str) -> bool:
        """Whether every folder from ``v1`` down to that of *path* is a real one; False for links and for what is not there."""
        folder = os.path.dirname(path)
        while is_real_folder(folder):
            if folder == self._root:
                return True
            folder = os.path.dirname(folder)
        return False

    def _make_folder(self, path: str) -> None:
        """Make the folder of *path*. Raises ``NotADirectoryError`` where a link or anything else stands in its place."""
        folder = os.path.dirname(path)
        os.makedirs(os.path.dirname(self._root), exist_ok=True)
        below = os.path.relpath(folder, self._root).split(os.sep)
        for count in range(len(below) + 1):
            current = os.path.join(self._root, *below[:count])
            with contextlib.suppress(FileExistsError):
                os.mkdir(current)
            if not is_real_folder(current):
                raise NotADirectoryError(errno.ENOTDIR, "a store holds real folders only, no links; remove what stands there", current)

    def _read(self, path: str, size: int) -> memoryview | None:
        opened = self._open(path, size)
        if opened is None:
            return None
        return _read_and_close(*opened)

    def _open_entry(self, path: str) -> tuple[io.FileIO, int, bytes] | None:
        """As ``_open``, and the first bytes."""
        opened = self._open(path, None)
        if opened is None:
            return None
        start = opened[0].read(START_BYTES) or b""
        opened[0].seek(0)
        return *opened, start

    def _open(self, path: str, exact_bytes: int | None) -> tuple[io.FileIO, int] | None:
        """(stream, its size) of the plain file *path*, or None; what cannot be the store's own is removed, to be stored over."""
        if not self._is_inside(path):
            self._warn_of_links(path)
            return None
        try:
            stream = io.FileIO(path, "rb", opener=_without_waiting)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _NO_PLAIN_FILE:
                raise
            log.warning("%s is not a plain file and is removed", path)
            self._remove(path)
            return None
        state = os.fstat(stream.fileno())
        is_wrong = state.st_size > MAX_ENTRY_BYTES if exact_bytes is None else state.st_size != exact_bytes
        if is_wrong or not stat.S_ISREG(state.st_mode):
            stream.close()
            log.warning("%s has %d bytes instead of %s and is removed", path, state.st_size, exact_bytes)
            self._remove(path)
            return None
        if time.time() - state.st_mtime > TOUCH_AFTER_S and not self._read_only:
            with contextlib.suppress(OSError):  # it belongs to somebody else
                os.utime(path)
        return stream, state.st_size

    def _put(self, key: str, entry: list[Any], blobs: list[Blob]) -> None:
        size = sum(memoryview(part).nbytes for part in entry) + sum(blob.size for blob in blobs)
        if size > self.cap_bytes * KEEP_SHARE:
            raise StoreFull(f"a result of {size} bytes does not fit below the cap of {self.cap_bytes} bytes (max_gb)")
        self._make_room(size)
        for blob in blobs:
            path = self._path("blobs", blob.digest)
            if self._has(path, blob.size):
                with contextlib.suppress(OSError):
                    os.utime(path)
            else:
                self._write(path, [blob.data])
        self._write(self._path("entries", key), entry)

    def _has(self, path: str, size: int) -> bool:
        """Whether a plain file of *size* bytes is there."""
        try:
            state = os.lstat(path)
        except OSError:
            return False
        return self._is_inside(path) and stat.S_ISREG(state.st_mode) and state.st_size == size

    def _write(self, path: str, parts: list[Any]) -> None:
        temporary = os.path.join(self._root, "tmp", uuid.uuid4().hex)
        self._make_folder(temporary)
        self._make_folder(path)
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
            if self._total_bytes is not None and self._uncounted_bytes + size <= self.cap_bytes * RECOUNT_SHARE:
                return
            files = sorted(self._files())
            total = sum(file_bytes for _, file_bytes, _ in files)
            if total + size > self.cap_bytes:
                total -= self._evict(files, total + size - int(self.cap_bytes * KEEP_SHARE))
            self._note_count(total)

    def _note_count(self, total_bytes: int) -> None:
        """The folder has just been counted; the lock is held."""
        self._total_bytes, self._uncounted_bytes, self._counted_s = total_bytes, 0, time.monotonic()

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
        """Remove the file, link or empty folder *path* itself, unless a link would lead there."""
        if self._read_only or not self._is_inside(path):
            return False
        try:
            os.unlink(path)
        except OSError:
            try:
                os.rmdir(path)
            except OSError:
                return False
        return True

    def _warn_of_links(self, path: str) -> None:
        if os.path.lexists(path):
            log.warning("%s is not read: a folder that leads there is a link, and a store holds real folders only", path)

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(last use, bytes, path) of every entry and blob; temporary files that were left behind are removed on the way."""
        for kind in ("entries", "blobs"):
            for shard in _scan(os.path.join(self._root, kind)):
                for one in _scan(shard.path) if is_shard(shard.name) else ():
                    state = _plain_file(one)
                    if state is not None and is_digest(one.name) and one.name.startswith(shard.name):
                        yield state.st_mtime, state.st_size, one.path
        now_s = time.time()
        for one in _scan(os.path.join(self._root, "tmp")):
            state = _plain_file(one)
            if state is None or not _TEMPORARY.fullmatch(one.name):
                continue
            if now_s - state.st_mtime > ABANDONED_S:
                self._remove(one.path)
            else:
                yield now_s, state.st_size, one.path


def is_digest(name: str) -> bool:
    """Whether *name* is a digest as files are named by it: lower-case hexadecimal digits, two or more."""
    return _DIGEST.fullmatch(name) is not None


def is_shard(name: str) -> bool:
    """Whether *name* is that of a folder that holds the files whose names begin like it."""
    return len(name) == 2 and is_digest(name)


def is_real_folder(path: str) -> bool:
    """Whether *path* is a folder and no link to one (nor a junction, on Windows)."""
    try:
        state = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and not getattr(state, "st_reparse_tag", 0)


def _scan(folder: str) -> list["os.DirEntry[str]"]:
    """What lies in a real folder; nothing where it is a link, missing or unreadable."""
    if not is_real_folder(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _plain_file(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """The status of a plain file, None for links and everything else."""
    try:
        state = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def _read_and_close(stream: io.FileIO, size: int) -> memoryview | None:
    """The *size* bytes of *stream*; None when they are not there any more."""
    with stream:
        data = view = fresh_memory(size)
        while view and (count := stream.readinto(view)):
            view = view[count:]
    return None if view else data


def _without_waiting(path: str, flags: int) -> int:
    """Open what should be a plain file: a pipe put there must not block a thread, and a link must not lead elsewhere."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
