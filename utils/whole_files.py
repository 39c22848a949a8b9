"""Files that appear under their names only when they are complete: a reader sees the old content or the new, never a part."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

NEW_FILE_MODE = 0o644


@contextlib.contextmanager
def partial_beside(path: str, suffix: str = "") -> Iterator[str]:
    """The path of an empty file to fill, in *path*'s folder; it takes the place of *path* at the end of the block.

    On any error it is removed, and what was at *path* is untouched. Its name is short, so that it fits wherever *path* does, and ends
    with *suffix*, for writers that look at it. Blocks; raises ``OSError`` and what the block raises.
    """
    mode = _mode_for(path)
    handle, temporary = tempfile.mkstemp(prefix=".part-", suffix=suffix, dir=os.path.dirname(path) or ".")
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_whole(path: str, write: Callable[[IO[bytes]], object], durable: bool = False) -> None:
    """Let *write* fill an open binary file and put it at *path* when it has finished; see :func:`partial_beside`.

    *durable*: the content is on the disk before its name is, so that a power failure cannot leave an empty file.
    """
    with partial_beside(path) as temporary, open(temporary, "wb") as file:
        write(file)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _mode_for(path: str) -> int:
    """The permission bits of what is at *path*, else those of a new file."""
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        return NEW_FILE_MODE
