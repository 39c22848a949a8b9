"""Opening files that a client or a folder named, of which nobody knows what they are: never a pipe, a socket or a device.

Opening a pipe that nobody writes to blocks for good, and reading a device may never end. Where a file lies on a system that makes its
content up as it is read (``/proc``), only as much is read as it says it has.
"""

import errno
import io
import os
import stat

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class NotRegularFile(OSError):
    """What a name leads to is a folder, a pipe, a socket or a device; the message names it."""


class FileTooLarge(OSError):
    """The file has more bytes than its reader takes; the message names it and both sizes."""


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
