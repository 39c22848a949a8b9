"""A file that tells, after the server was killed, which prompts it had begun."""

import os
import sys
import time

if sys.platform != "win32":
    import fcntl

LOOK_AGAIN_S = 0.02


class StartedPrompts:
    """Appends ids to the file at *path*, which is there once this was made. Used by one thread at a time.

    What is written survives the death of the process, though not that of the machine. The file is locked as long as the process lives.
    """

    def __init__(self, path: str) -> None:
        """Raises ``OSError``."""
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if sys.platform != "win32":
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def note(self, prompt_id: str) -> None:
        """Add *prompt_id*, a line of its own. Raises ``OSError``: a prompt whose start cannot be noted must not run."""
        line = f"{prompt_id}\n".encode()
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path} takes no more: is the disk full? (--started-prompts names this file)")


def read_started(path: str, patience_s: float = 0.0) -> frozenset[str] | None:
    """The ids in the file at *path*; None when it cannot be read, or its server still lives after *patience_s*: nothing is certain.

    Blocks.
    """
    end_s = time.monotonic() + patience_s
    try:
        with open(path, encoding="utf-8") as file:
            while not _is_left(file.fileno()):
                if time.monotonic() >= end_s:
                    return None
                time.sleep(LOOK_AGAIN_S)
            return frozenset(file.read().split())
    except OSError:
        return None


def _is_left(descriptor: int) -> bool:
    """Whether no server has the file any more."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
