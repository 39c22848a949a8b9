"""Writing a file so that a reader sees the old or the new content and never a part of it."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import IO


def write_atomic(path: str, data: bytes) -> None:
    """Put *data* at *path*, replacing what is there. The parent folder must exist. Blocks; raises ``OSError``."""
    write_atomic_with(path, lambda file: file.write(data))


def write_atomic_with(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Let *write* fill a temporary file beside *path*, then move it there in one step.

    On any error the temporary file is removed and what was at *path* is untouched. Blocks; raises ``OSError`` and whatever
    *write* raises.
    """
    folder = os.path.dirname(path)
    mode = _mode_for(path)
    handle, temporary = tempfile.mkstemp(prefix=".part-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def reserve(path: str) -> bool:
    """Create *path* empty and return True, or return False if something is there already. Blocks; raises ``OSError``."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def _mode_for(path: str) -> int:
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        return 0o644
