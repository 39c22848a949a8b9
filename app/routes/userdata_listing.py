"""Walking a user's folder for the two listing routes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from utils.folder_walk import MAX_DEPTH, is_folder
from utils.path_safety import is_within_directory

TEMPORARY_PREFIX = ".part-"


def file_info(path: str, relative: str) -> dict[str, Any]:
    """What ``full_info`` answers for a file: path with ``/``, size in bytes, times in milliseconds. Raises ``OSError``."""
    status = os.stat(path)
    return {"path": relative, "size": status.st_size, "modified": int(status.st_mtime * 1000), "created": int(status.st_ctime * 1000)}


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    prefix: str
    depth: int


@dataclass(frozen=True, slots=True)
class _Files:
    entries: list[os.DirEntry[str]]
    prefix: str


def walk(root: str, *, recurse: bool, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield ``(relative path with /, entry)`` below *root*, folders before files, each in alphabetical order.

    Links are followed to files inside *root* only, links to folders never, and folders that cannot be read, or lie deeper than 64
    others, are skipped. Blocks. Raises ``OSError`` when *root* itself is missing or no folder.
    """
    waiting: list[_Folder | _Files] = [_Folder(root, prefix, 0)]
    while waiting:
        here = waiting.pop()
        if isinstance(here, _Files):
            yield from ((here.prefix + entry.name, entry) for entry in here.entries)
            continue
        try:
            with os.scandir(here.path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if here.depth == 0 and not isinstance(error, PermissionError):
                raise
            continue
        folders = [entry for entry in found if is_folder(entry, follow_links=False)]
        files = [entry for entry in found if not entry.name.startswith(TEMPORARY_PREFIX) and _is_own_file(entry, here.path)]
        yield from ((here.prefix + entry.name, entry) for entry in folders)
        waiting.append(_Files(files, here.prefix))
        if recurse and here.depth < MAX_DEPTH:
            waiting += [_Folder(entry.path, f"{here.prefix}{entry.name}/", here.depth + 1) for entry in reversed(folders)]


def list_files(folder: str, *, recurse: bool, full_info: bool, split: bool) -> list[Any]:
    """The answer of ``GET /userdata``: paths relative to *folder*, or their details, or each split into its parts.

    Hidden files and folders are left out. Blocks. Raises ``FileNotFoundError``/``NotADirectoryError`` as ``os.scandir`` does.
    """
    listed: list[Any] = []
    for relative, entry in walk(folder, recurse=recurse):
        parts = relative.split("/")
        if any(part.startswith(".") for part in parts) or entry.is_dir(follow_symlinks=False):
            continue
        if full_info:
            try:
                listed.append(file_info(entry.path, relative))
            except FileNotFoundError:
                continue
        elif split:
            listed.append([relative, *parts])
        else:
            listed.append(relative)
    return listed


def list_entries(folder: str, prefix: str) -> list[dict[str, Any]]:
    """The answer of ``GET /v2/userdata``: every folder and file below *folder*, folders first, times in seconds.

    *prefix* is the listed folder's own path below the user's folder (empty, or ending in ``/``). Blocks.
    """
    entries: list[dict[str, Any]] = []
    for relative, entry in walk(folder, recurse=True):
        item: dict[str, Any] = {"name": entry.name, "path": prefix + relative}
        if entry.is_dir(follow_symlinks=False):
            entries.append({**item, "type": "directory"})
            continue
        try:
            status = os.stat(entry.path)
        except FileNotFoundError:
            continue
        entries.append({**item, "type": "file", "size": status.st_size, "modified": status.st_mtime})
    return sorted(entries, key=lambda item: (item["type"] != "directory", item["path"]))


def _is_own_file(entry: os.DirEntry[str], root: str) -> bool:
    try:
        return entry.is_file() and (not entry.is_symlink() or is_within_directory(root, entry.path))
    except OSError:
        return False
