"""The folder of short-lived files: emptied at start and end, unless another server is using it."""

import contextlib
import importlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from utils.folder_walk import remove_tree

log = logging.getLogger(__name__)

_MAX_LINES_BYTES = 64 * 1024


class TempFolder:
    """Claims *path*, a folder that need not exist, for this process until ``release``.

    Beside it lies ``<path>.lock``: every server that uses the folder holds a shared lock on that file and has written into it who it is.
    Whoever could lock the file alone may empty the folder. Blocks on the disk.
    """

    def __init__(self, path: str, port: int | None = None) -> None:
        """*port* is told to other servers' users."""
        self.path = path
        self._file: Any = None
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        try:
            self._file = open(f"{os.path.abspath(path)}.lock", "a+b")  # noqa: SIM115 (held until release)
        except OSError as error:
            log.warning("The temp folder %s cannot be locked (%s); do not start two servers on it", path, error)
        self._empty_if_alone("is left as it is")
        self._share()
        self._write_line({"pid": os.getpid(), "port": port, "since": time.strftime("%Y-%m-%d %H:%M:%S")})
        os.makedirs(path, exist_ok=True)

    def release(self) -> None:
        """Empty the folder if no other server uses it, and give the claim back. May be called again."""
        if self._file is None:
            return
        self._empty_if_alone("stays")
        self._file.close()
        self._file = None

    def _empty_if_alone(self, otherwise: str) -> None:
        if self._is_alone():
            remove_tree(self.path)
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.truncate(0)
            return
        users = "; ".join(self._others()) or "unknown"
        log.warning("The temp folder %s is in use by another server (%s) and %s", self.path, users, otherwise)

    def _is_alone(self) -> bool:
        if self._file is None:
            return True
        if importlib.util.find_spec("fcntl") is None:
            return not list(self._others())
        fcntl = importlib.import_module("fcntl")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _share(self) -> None:
        if self._file is not None and importlib.util.find_spec("fcntl") is not None:
            fcntl = importlib.import_module("fcntl")
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_SH)

    def _write_line(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write(json.dumps(line).encode() + b"\n")
                self._file.flush()

    def _others(self) -> Iterator[str]:
        """Who else wrote into the lock file and still lives."""
        psutil = importlib.import_module("psutil")
        self._file.seek(0)
        for text in self._file.read(_MAX_LINES_BYTES).splitlines():
            try:
                line = json.loads(text)
                pid, port, since = int(line["pid"]), line["port"], line["since"]
            except (ValueError, LookupError, TypeError):
                continue
            if pid != os.getpid() and psutil.pid_exists(pid):
                yield f"process {pid}, port {port}, since {since}"
