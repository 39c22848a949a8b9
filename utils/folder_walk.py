"""Walks, makes and removes folders of any depth, without recursion; links that lead to themselves do no harm."""

import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)

MAX_FOLDERS, MAX_DEPTH = 100_000, 64
# Folders with longer paths below the start are moved up before they are removed: every look at a long path walks it anew, and there is
# a longest path that a system takes.
_LONG_PATH_BYTES = 256


@dataclass(frozen=True, slots=True)
class Visited:
    """One folder that was read. *below* is its path relative to the start, "" for the start itself; both lists are in order of names."""

    path: str
    below: str
    status: os.stat_result
    folders: list[os.DirEntry[str]]
    files: list[os.DirEntry[str]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One to be read; *line* holds the (device, inode) of the folders it lies in."""

    path: str
    below: str
    line: tuple[tuple[int, int], ...]


def is_folder(entry: os.DirEntry[str], *, follow_links: bool = True) -> bool:
    """Whether *entry* is a folder; False for a link that leads to itself and for what cannot be examined."""
    try:
        return entry.is_dir(follow_symlinks=follow_links)
    except OSError:
        return False


def is_regular_file(entry: os.DirEntry[str]) -> bool:
    """Whether *entry* is a regular file, or a link to one; False for pipes, sockets, devices and links that lead to themselves."""
    try:
        return entry.is_file()
    except OSError:
        return False


def regular_files_in(folder: str) -> list[os.DirEntry[str]]:
    """The regular files directly in *folder*; none where it is missing or cannot be read. Blocks on disk."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if is_regular_file(entry)]
    except OSError:
        return []


def walk(directory: str, *, follow_links: bool = True, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Visited]:
    """Every folder from *directory* downwards that can be read, each before those in it, in order of names. Blocks on disk.

    A folder whose name is not *wanted* is left out. A folder that links lead to is read under each of its names; only a link to a folder
    that the link itself lies in is not followed. At most :data:`MAX_FOLDERS` folders down to :data:`MAX_DEPTH` are read; what is left
    out is said in a warning, as are unreadable folders.
    """
    waiting, read = [_Waiting(directory, "", ())], 0
    while waiting:
        here = waiting.pop()
        visited = _visit(here, follow_links)
        if visited is None:
            continue
        read += 1
        yield visited
        names = [entry.name for entry in visited.folders if wanted(entry.name)]
        if names and (len(here.line) >= MAX_DEPTH or read + len(waiting) >= MAX_FOLDERS):
            log.warning("Not listed: the folders in %.300s; there are too many, or they lie too deep", here.path)
            continue
        line = (*here.line, (visited.status.st_dev, visited.status.st_ino))
        waiting += [_Waiting(os.path.join(here.path, name), os.path.join(here.below, name), line) for name in reversed(names)]


def _visit(here: _Waiting, follow_links: bool) -> Visited | None:
    try:
        status = os.stat(here.path)
        identity = (status.st_dev, status.st_ino)
        if identity in here.line and identity != (0, 0):
            return None
        with os.scandir(here.path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        log.warning("Skipped %.300s while listing files: %s", error.filename, error.strerror)
        return None
    folders = [entry for entry in found if is_folder(entry)]
    files = [entry for entry in found if not is_folder(entry)]
    if not follow_links:
        folders = [entry for entry in folders if is_folder(entry, follow_links=False)]
    return Visited(here.path, here.below, status, folders, files)


def remove_tree(directory: str) -> None:
    """Remove *directory* and everything in it, at any depth; links are removed, not followed. Blocks on disk.

    Whatever cannot be removed stays, and one warning says how much that is. Nothing happens when there is no such folder.
    """
    if not os.path.isdir(directory) or os.path.islink(directory):
        return
    waiting, emptied, left = [directory], [], 0
    while waiting:
        here = waiting.pop()
        emptied.append(here)
        try:
            with os.scandir(here) as entries:
                found = list(entries)
        except OSError:
            continue
        for entry in found:
            if is_folder(entry, follow_links=False):
                waiting.append(_within_reach(entry.path, directory))
                continue
            try:
                os.unlink(entry.path)
            except OSError:
                left += 1
    for folder in reversed(emptied):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    if os.path.isdir(directory):
        log.warning("%s cannot be removed entirely: %d files in it stay; check its permissions", directory, left)


def _within_reach(path: str, top: str) -> str:
    """*path*, or where the folder was moved to, directly below *top*, because names inside it would be too long."""
    if len(os.fsencode(path)) - len(os.fsencode(top)) < _LONG_PATH_BYTES:
        return path
    moved = os.path.join(top, uuid.uuid4().hex)
    try:
        os.rename(path, moved)
    except OSError:
        return path
    return moved
