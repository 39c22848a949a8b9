"""What is in files: a digest of all their bytes, worked out once per state of a file and remembered over restarts.

A file counts as unchanged while device, inode, size, modification and change time are the same; the last cannot be set by programs, so a
copy with forged times is read again. Reading runs on worker threads at the speed of the disk.
"""

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from blake3 import blake3

from comfy_execution.prompt_files.file_state import State, file_state, state_of
from comfy_execution.units import MIB
from utils.regular_files import open_regular

log = logging.getLogger(__name__)

READ_BYTES = 4 * MIB
# A file written this shortly before could be written again without its times showing it.
SETTLED_S = 0.1
# Above this a file's fingerprint is worth remembering over restarts.
REMEMBER_BYTES = 8 * MIB
MAX_REMEMBERED = 4096


class FileFingerprints:
    """Any thread. ``request`` never blocks; ``close`` does not wait for reading that has begun."""

    def __init__(self, memory_path: str | None = None, threads: int = 2) -> None:
        """*memory_path*: a JSON file that keeps fingerprints of large files; it is read at the first request."""
        self._memory_path = memory_path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[State, str]] | None = None
        self._reading: dict[tuple[str, State], Future[str | None]] = {}
        self._pool = ThreadPoolExecutor(threads, "file-fingerprint")

    def request(self, path: str, state: State | None) -> "Future[str | None]":
        """The fingerprint of the file at *path*, a real path, in *state*; None when it cannot be read or is not in that state."""
        done: Future[str | None] = Future()
        if state is None:
            log.warning("%s cannot be read, so results made from it are not shared", path)
            done.set_result(None)
            return done
        with self._lock:
            known = self._remembered_locked().get(path)
            if known is not None and known[0] == state:
                done.set_result(known[1])
                return done
            reading = self._reading.get((path, state))
            if reading is None:
                reading = self._reading[path, state] = self._pool.submit(self._read, path, state)
            return reading

    def close(self) -> None:
        """Begin no more reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, path: str, state: State) -> str | None:
        began_s, began_wall_s = time.monotonic(), time.time()
        try:
            digest = read_digest(path, state)
            if digest is None or file_state(path) != state:
                log.warning("%s was changed while it was read, so results made from it are not shared now", path)
                return None
        except OSError as error:
            log.warning("%s cannot be read, so results made from it are not shared: %s", path, error)
            return None
        finally:
            with self._lock:
                self._reading.pop((path, state), None)
        took_s = time.monotonic() - began_s
        if took_s > 1:
            log.info("Read %s to know its content for shared results: %.0f MB in %.1f s", path, state[2] / 1e6, took_s)
        if began_wall_s - max(state[3], state[4]) / 1e9 > SETTLED_S:
            self._remember(path, state, digest)
        return digest

    def _remember(self, path: str, state: State, digest: str) -> None:
        with self._lock:
            known = self._remembered_locked()
            known.pop(path, None)
            known[path] = state, digest
            large = [(name, entry) for name, entry in known.items() if entry[0][2] >= REMEMBER_BYTES][-MAX_REMEMBERED:]
        if self._memory_path is not None and state[2] >= REMEMBER_BYTES:
            try:
                _write_json(self._memory_path, {name: [list(entry[0]), entry[1]] for name, entry in large})
            except OSError as error:
                log.warning("%s cannot be written, so large files are read again after a restart: %s", self._memory_path, error)

    def _remembered_locked(self) -> dict[str, tuple[State, str]]:
        if self._known is None:
            self._known = {} if self._memory_path is None else _load(self._memory_path)
        return self._known


def read_digest(path: str, state: State) -> str | None:
    """The BLAKE3 digest of a regular file's bytes, as 64 hexadecimal digits; None when it is not in *state*. Blocks; raises ``OSError``."""
    digest = blake3(max_threads=blake3.AUTO)
    with open_regular(path) as stream:
        if state_of(os.fstat(stream.fileno())) != state:
            return None
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        buffer = memoryview(bytearray(READ_BYTES))
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _load(path: str) -> dict[str, tuple[State, str]]:
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        return {name: (tuple(state), digest) for name, (state, digest) in document.items() if len(state) == 5 and len(digest) == 64}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read; large files are read again: %s", path, error)
        return {}


def _write_json(path: str, document: object) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".fingerprints-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(document, stream)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
