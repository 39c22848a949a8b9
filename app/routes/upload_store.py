"""Putting uploaded files into a folder under a free name, without storing the same content twice."""

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from typing import IO

from app.files.atomic_file import reserve, write_atomic_with
from app.files.path_guard import UnsafePath, contained_path
from comfy.units import MIB
from utils.regular_files import open_regular

_MAX_SUFFIX = 100_000
_ANNOTATION = re.compile(r"(?:\s*\[(?:input|output|temp)\])+\s*$")
_CHUNK_BYTES = MIB


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where an upload goes: below *root*, in *subfolder*, as *filename*. Make it by :meth:`of`."""

    root: str
    subfolder: str
    filename: str

    @classmethod
    def of(cls, root: str, subfolder: str, filename: str) -> "UploadTarget":
        """The target for a *filename* as a client sent it: folders in it belong to the subfolder, and an ending like `` [output]``, by
        which prompts name a folder, is left off; else nobody would find the file by the name it got."""
        given = filename.replace("\\", "/")
        above, _, name = given.rpartition("/")
        folder = above or "/" if given.startswith("/") else "/".join(part for part in (subfolder, above) if part)
        return cls(root, folder, _ANNOTATION.sub("", name) or name)

    def path(self) -> str:
        """The absolute path that is asked for. Raises ``UnsafePath`` when it is not a file name inside *root*."""
        name = self.filename
        if not name.strip() or name in (".", ".."):
            raise UnsafePath(f"not a file name: {self.filename!r}", escapes=False)
        folder = contained_path(self.root, self.subfolder) if self.subfolder else os.path.abspath(self.root)
        return contained_path(self.root, os.path.relpath(contained_path(folder, name), os.path.abspath(self.root)))


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """The name that the file got, relative to the subfolder, and whether bytes were written."""

    name: str
    written: bool


def store_upload(target: UploadTarget, content: IO[bytes], *, overwrite: bool, hashing_function: str) -> StoredUpload:
    """Write *content* to the target, or find that it is already there.

    Without *overwrite*, a file of that name with equal content is kept and its name returned; with different content the
    name gets `` (1)``, `` (2)`` and so on. Blocks. Raises ``UnsafePath`` or ``OSError``.
    """
    wanted = target.path()
    requested = target.filename
    os.makedirs(os.path.dirname(wanted), exist_ok=True)
    if overwrite:
        if os.path.isdir(wanted):
            raise UnsafePath(f"{requested!r} is a folder", escapes=False)
        _write(wanted, content)
        return StoredUpload(requested, True)
    for number in range(_MAX_SUFFIX):
        name = _numbered(requested, number)
        path = os.path.join(os.path.dirname(wanted), os.path.basename(name))
        if reserve(path):
            _write_reserved(path, content)
            return StoredUpload(name, True)
        if _same_content(path, content, hashing_function):
            return StoredUpload(name, False)
    raise UnsafePath(f"{requested!r} has no free name left", escapes=False)


def _numbered(name: str, number: int) -> str:
    if number == 0:
        return name
    stem, extension = os.path.splitext(name)
    return f"{stem} ({number}){extension}"


def _write(path: str, content: IO[bytes]) -> None:
    content.seek(0)
    write_atomic_with(path, lambda file: shutil.copyfileobj(content, file, _CHUNK_BYTES))


def _write_reserved(path: str, content: IO[bytes]) -> None:
    try:
        _write(path, content)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _same_content(path: str, content: IO[bytes], hashing_function: str) -> bool:
    if not os.path.isfile(path) or os.path.islink(path):
        return False
    if os.path.getsize(path) != content.seek(0, os.SEEK_END):
        return False
    content.seek(0)
    uploaded = hashlib.file_digest(content, hashing_function).digest()  # type: ignore[arg-type]
    with open_regular(path) as file:
        return hashlib.file_digest(file, hashing_function).digest() == uploaded
