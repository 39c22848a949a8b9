"""Keeping names that arrive over HTTP inside the folder they are meant for."""

import os
import re

from utils.folder_walk import MAX_DEPTH
from utils.path_safety import is_within_directory

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 4096
_WINDOWS_DRIVE = re.compile(r"^[A-Za-z]:")
_SEPARATORS = re.compile(r"[\\/]")


class UnsafePath(ValueError):
    """A name that no file may have (``escapes`` false) or that leads out of its folder (``escapes`` true)."""

    def __init__(self, message: str, *, escapes: bool) -> None:
        super().__init__(message)
        self.escapes = escapes

    @property
    def status(self) -> int:
        """The HTTP status that says so: 403 for leaving the folder, 400 for a malformed name."""
        return 403 if self.escapes else 400


def check_relative_name(name: str) -> None:
    """Raise ``UnsafePath`` unless *name* reads as a relative path that climbs nowhere, on POSIX and on Windows alike."""
    if "\0" in name:
        raise UnsafePath("the path contains a NUL character", escapes=False)
    try:
        parts = [os.fsencode(part) for part in _SEPARATORS.split(name)]
    except UnicodeEncodeError:
        raise UnsafePath("the path is not valid text", escapes=False) from None
    if len(name) > MAX_PATH_BYTES or any(len(part) > MAX_COMPONENT_BYTES for part in parts):
        raise UnsafePath("the path is too long", escapes=False)
    if sum(part not in (b"", b".") for part in parts) > MAX_DEPTH:
        raise UnsafePath(f"the path lies more than {MAX_DEPTH} folders deep", escapes=False)
    if name.startswith(("/", "\\")) or _names_a_drive(name):
        raise UnsafePath(f"an absolute path is not accepted: {name!r}", escapes=True)
    if b".." in parts and _climbs(parts):
        raise UnsafePath(f"the path leaves its folder: {name!r}", escapes=True)


def contained_path(root: str | os.PathLike[str], name: str) -> str:
    """The absolute path of *name* below *root*; nothing needs to exist yet.

    Raises ``UnsafePath`` for a malformed name, for one that climbs out of *root*, and for one that a symbolic link leads
    out of it. Touches the disk (a few ``lstat`` calls).
    """
    check_relative_name(name)
    absolute_root = os.path.abspath(root)
    path = os.path.normpath(os.path.join(absolute_root, name))
    if not is_within_directory(absolute_root, path):
        raise UnsafePath(f"the path leaves its folder: {name!r}", escapes=True)
    return path


def _names_a_drive(name: str) -> bool:
    if not _WINDOWS_DRIVE.match(name):
        return False
    return os.name == "nt" or name[2:3] in ("/", "\\")


def _climbs(parts: list[bytes]) -> bool:
    depth = 0
    for part in parts:
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False
