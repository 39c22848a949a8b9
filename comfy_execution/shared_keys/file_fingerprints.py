"""What is in files: a digest of all their bytes, worked out once per state of a file and remembered over restarts.

A file counts as unchanged while device, inode, size, modification and change time are the same; the last cannot be set by programs, so a
copy with forged times is read again. Reading runs on threads of its own at the speed of the disk, which the end of the process does not
wait for; what stands still, as on a mount that is gone, holds up neither other files nor prompts.
"""

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

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
# Reading that has not come a block further for so long stands still.
STILL_S = 2.0
# Threads that stand still before no more is read.
MAX_STILL = 32


@dataclass(eq=False, slots=True)
class _Reading:
    """A file that is to be read, or is being read since *moved_s*, or has come a block further then."""

    path: str
    state: State
    outcome: "Future[str | None]" = field(default_factory=Future)
    moved_s: float | None = None
    is_still: bool = False

    def moved(self) -> None:
        """It has begun, or come a block further."""
        self.moved_s = time.monotonic()

    def tell(self, digest: str | None) -> None:
        """The outcome, for those who still wait for it."""
        with contextlib.suppress(InvalidStateError):
            self.outcome.set_result(digest)


class FileFingerprints:
    """Any thread. ``request`` never blocks; ``close`` does not wait for reading that has begun."""

    def __init__(self, memory_path: str | None = None, threads: int = 2, still_s: float = STILL_S) -> None:
        """*memory_path*: a JSON file that keeps fingerprints of large files; it is read at the first request.

        Up to *threads* files are read at once, beside those whose reading has stood still for *still_s*.
        """
        self._memory_path = memory_path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[State, str]] | None = None
        self._threads = threads
        self._still_s = still_s
        self._readings: dict[tuple[str, State], _Reading] = {}
        self._waiting: deque[_Reading] = deque()
        self._is_watched = self._is_closed = False
        self._none_left = threading.Condition(self._lock)

    def request(self, path: str, state: State | None) -> "Future[str | None]":
        """The fingerprint of the file at *path*, a real path, in *state*; None when it cannot be read or is not in that state.

        None also where reading it stands still. That is said once; the next request after it was read all the same has the fingerprint.
        """
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
            reading = self._readings.get((path, state))
            if reading is None:
                reading = self._readings[path, state] = _Reading(path, state)
                self._waiting.append(reading)
                self._start_locked()
            return reading.outcome

    def close(self) -> None:
        """Begin no more reading."""
        with self._lock:
            self._is_closed = True
            self._start_locked()

    def _start_locked(self) -> None:
        """Begin to read as many files as may be read, and watch that they come on."""
        still = sum(reading.is_still for reading in self._readings.values())
        while self._waiting:
            if self._is_closed or still >= MAX_STILL:
                reading = self._waiting.popleft()
                del self._readings[reading.path, reading.state]
                reading.tell(None)
                continue
            if self._moving_locked() >= self._threads:
                break
            reading = self._waiting.popleft()
            reading.moved()
            threading.Thread(target=self._work, args=(reading,), name="file-fingerprint", daemon=True).start()
        if not self._is_watched and self._moving_locked():
            self._is_watched = True
            threading.Thread(target=self._watch, name="file-fingerprint-watch", daemon=True).start()

    def _moving_locked(self) -> int:
        return sum(reading.moved_s is not None and not reading.is_still for reading in self._readings.values())

    def _watch(self) -> None:
        """Until nothing is read any more: pass over what stands still."""
        is_over = False
        while not is_over:
            with self._lock:
                self._none_left.wait_for(lambda: not self._readings, self._still_s / 4)
                latest_s = time.monotonic() - self._still_s
                still = [one for one in self._readings.values() if one.moved_s is not None and not one.is_still and one.moved_s < latest_s]
                for reading in still:
                    reading.is_still = True
                self._start_locked()
                is_over = not self._moving_locked()
                self._is_watched = not is_over
            for reading in still:
                log.warning("Reading %s stands still, so results made from it are not shared until it has been read", reading.path)
                reading.tell(None)

    def _work(self, reading: _Reading) -> None:
        digest = None
        try:
            digest = self._read(reading.path, reading.state, reading.moved)
        finally:
            with self._lock:
                del self._readings[reading.path, reading.state]
                self._start_locked()
                if not self._readings:
                    self._none_left.notify()
            reading.tell(digest)

    def _read(self, path: str, state: State, moved: Callable[[], None]) -> str | None:
        began_s, began_wall_s = time.monotonic(), time.time()
        try:
            digest = read_digest(path, state, moved)
            if digest is None or file_state(path) != state:
                log.warning("%s was changed while it was read, so results made from it are not shared now", path)
                return None
        except OSError as error:
            log.warning("%s cannot be read, so results made from it are not shared: %s", path, error)
            return None
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


def read_digest(path: str, state: State, moved: Callable[[], None] = lambda: None) -> str | None:
    """The BLAKE3 digest of a regular file's bytes, as 64 hexadecimal digits; None when it is not in *state*. Blocks; raises ``OSError``.

    *moved* is called after each block.
    """
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
            moved()
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
