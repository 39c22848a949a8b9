"""Writing files on behalf of clients; see :mod:`utils.whole_files`."""

import errno
import os
from collections.abc import Callable
from typing import IO

from utils.whole_files import partial_beside, write_whole


def write_atomic(path: str, data: bytes) -> None:
    """Put *data* at *path*, replacing what is there. The parent folder must exist. Blocks; raises ``OSError``."""
    write_atomic_with(path, lambda file: file.write(data))


def write_verified(path: str, data: bytes) -> None:
    """As ``write_atomic``, but *data* is read back before it takes the place of what is there; ``OSError`` when it differs."""
    with partial_beside(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with open(temporary, "rb") as file:
            if file.read() != data:
                raise OSError(errno.EIO, "what was written does not read back", path)


def write_atomic_with(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Let *write* fill a file that takes the place of *path* in one step; on any error what was there is untouched."""
    write_whole(path, write, durable=True)


def reserve(path: str) -> bool:
    """Create *path* empty and return True, or return False if something is there already. Blocks; raises ``OSError``."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True
