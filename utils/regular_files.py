"""Opens files whose kind is unknown, as a client or a folder named them, and refuses pipes, sockets and devices.

Opening a pipe that nobody writes to blocks for good, and reading a device may never end. Where a file lies on a system that makes its
content up as it is read (``/proc``), no more is read than the size it reports.
"""

import errno
import io
import os
import stat

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class NotRegularFile(OSError):
    """The path leads to a folder, a pipe, a socket or a device; the message names it."""


class FileTooLarge(OSError):
    """The file is larger than its reader accepts; the message names it and both sizes."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """The regular file at *path*, links followed, open for reading bytes; the caller closes it.

    Never waits for another process. Raises ``OSError``, and :class:`NotRegularFile` for anything but a file.
    """
    try:
        handle = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a socket; a folder, on some systems
            raise NotRegularFile(f"{os.fspath(path)} is not a regular file") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotRegularFile(f"{os.fspath(path)} is not a regular file")
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The content of the regular file at *path*: what it had when it was opened. Raises ``OSError`` as :func:`open_regular`,
    and :class:`FileTooLarge` for more than *max_bytes*."""
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > max_bytes:
            raise FileTooLarge(f"{os.fspath(path)} has {size_bytes} bytes; at most {max_bytes} are read")
        return file.read(size_bytes) or b""
