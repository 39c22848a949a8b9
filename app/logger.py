"""What the console shows, kept for the page's log panel: the last writes to stdout and stderr, and the root logger's set-up."""

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO, TypedDict

log = logging.getLogger(__name__)

DEFAULT_CAPACITY = 300
_MAX_WAITING_ENTRIES = 10_000


class LogEntry(TypedDict):
    """One write: ``t`` its local time in ISO form, ``m`` the text."""

    t: str
    m: str


FlushCallback = Callable[[list[LogEntry]], object]


class LogBuffer:
    """The last *capacity* entries, and the listeners for new ones. Any thread may call any method.

    Callbacks run on the thread that flushes, without the lock; what they themselves print is kept but not announced.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._lock = threading.Lock()
        self._entries: deque[LogEntry] = deque(maxlen=capacity)
        self._waiting: deque[LogEntry] = deque(maxlen=_MAX_WAITING_ENTRIES)
        self._callbacks: list[FlushCallback] = []
        self._announcing = threading.local()

    def resize(self, capacity: int) -> None:
        """Keep *capacity* entries from now on."""
        with self._lock:
            self._entries = deque(self._entries, maxlen=capacity)

    def append(self, text: str) -> None:
        """Remember *text*. One that begins with a carriage return replaces the unfinished line before it, as on a console."""
        entry = LogEntry(t=datetime.now().isoformat(), m=text)
        with self._lock:
            if text.startswith("\r") and self._entries and not self._entries[-1]["m"].endswith("\n"):
                self._entries.pop()
            self._entries.append(entry)
            if self._callbacks and not getattr(self._announcing, "active", False):
                self._waiting.append(entry)

    def entries(self) -> list[LogEntry]:
        """A copy of what is kept, oldest first."""
        with self._lock:
            return list(self._entries)

    def subscribe(self, callback: FlushCallback) -> None:
        """Call *callback* with the new entries at each flush of a captured stream."""
        with self._lock:
            self._callbacks.append(callback)

    def announce(self) -> None:
        """Hand the entries since the last time to every callback; one that raises is reported once and dropped."""
        if getattr(self._announcing, "active", False):
            return
        with self._lock:
            if not self._waiting:
                return
            new, callbacks = list(self._waiting), list(self._callbacks)
            self._waiting.clear()
        self._announcing.active = True
        try:
            for callback in callbacks:
                self._call(callback, new)
        finally:
            self._announcing.active = False

    def _call(self, callback: FlushCallback, new: list[LogEntry]) -> None:
        try:
            callback(new)
        except Exception:
            with self._lock, contextlib.suppress(ValueError):
                self._callbacks.remove(callback)
            log.exception("A listener of the log failed and is not called again")


class CapturedStream:
    """Stands in for ``sys.stdout`` or ``sys.stderr``: everything reaches the console as before and a ``LogBuffer`` as well."""

    def __init__(self, stream: TextIO, buffer: LogBuffer) -> None:
        self._stream = stream
        self._log_buffer = buffer

    def write(self, text: str) -> int:
        """Write to the console and remember the text. What the console's encoding lacks is replaced there."""
        if text:
            self._log_buffer.append(text)
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of *lines*."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the console, then announce what is new."""
        self._stream.flush()
        self._log_buffer.announce()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


class _BelowError(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR


class _Capture:
    """The process's one capture: the buffer exists from the start, the streams are replaced by ``start``."""

    def __init__(self) -> None:
        self.buffer = LogBuffer()
        self.started = False

    def start(self, capacity: int) -> bool:
        if self.started:
            return False
        self.started = True
        self.buffer.resize(capacity)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is not None:
                setattr(sys, name, CapturedStream(getattr(sys, name), self.buffer))
        return True


_capture = _Capture()
MAX_ENTRY_LENGTH = 32_000
STARTUP_WARNINGS: list[str] = []


def get_logs() -> list[LogEntry]:
    """The captured entries, oldest first; empty before ``setup_logger``."""
    return _capture.buffer.entries()


def on_flush(callback: FlushCallback) -> None:
    """Call *callback* with the list of new entries whenever stdout or stderr is flushed."""
    _capture.buffer.subscribe(callback)


def setup_logger(
    log_level: str = "INFO",
    file_outputs: Sequence[tuple[str, str]] | None = None,
    capacity: int = DEFAULT_CAPACITY,
    use_stdout: bool = False,
) -> None:
    """Capture stdout and stderr and let the root logger write to stderr at *log_level*; a second call does nothing.

    *use_stdout* sends what is below an error to stdout. *file_outputs* holds (level, path) of files to append to as well.
    """
    if not _capture.start(capacity):
        return
    root = logging.getLogger()
    console_level = _level(log_level)
    errors = _console_handler(sys.stderr, console_level)
    root.addHandler(errors)
    if use_stdout:
        errors.setLevel(max(console_level, logging.ERROR))
        ordinary = _console_handler(sys.stdout, console_level)
        ordinary.addFilter(_BelowError())
        root.addHandler(ordinary)
    levels = [console_level]
    for level, path in file_outputs or ():
        handler = _file_handler(path, _level(level))
        if handler is not None:
            root.addHandler(handler)
            levels.append(handler.level)
    root.setLevel(min(levels))


def log_startup_warning(msg: str) -> None:
    """Log a warning now and again at the end of the start, where it is seen."""
    log.warning(msg)
    STARTUP_WARNINGS.append(msg)


def print_startup_warnings() -> None:
    """Repeat the collected warnings and forget them."""
    for message in STARTUP_WARNINGS:
        log.warning(message)
    STARTUP_WARNINGS.clear()


class _Bounded(logging.Formatter):
    """Cuts what is too long to read: what clients send may be part of a message."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if len(text) <= MAX_ENTRY_LENGTH:
            return text
        return f"{text[:MAX_ENTRY_LENGTH]} … ({len(text) - MAX_ENTRY_LENGTH} more characters)"


def _level(name: str) -> int:
    level = logging.getLevelName(name)
    return level if isinstance(level, int) else logging.INFO


def _console_handler(stream: Any, level: int) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Bounded("%(message)s"))
    handler.setLevel(level)
    return handler


def _file_handler(path: str, level: int) -> logging.Handler | None:
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        log.warning("No log is written to %s: %s", path, error)
        return None
    handler.setFormatter(_Bounded("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(level)
    return handler
