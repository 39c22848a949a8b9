"""Lists of the files below a folder, remembered until one of its folders changes."""

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass

log = logging.getLogger(__name__)

MAX_FOLDERS, MAX_DEPTH = 100_000, 64
Listing = tuple[list[str], dict[str, float]]


def recursive_search(directory: str, excluded_dir_names: Collection[str] | None = None) -> Listing:
    """Every file below *directory*, links followed, and the modification time of every folder met.

    Returns (paths relative to *directory*, {folder: mtime in seconds}); ``([], {})`` when it does not exist. A folder that links lead to
    is listed under each of its names; only a link to a folder that the link itself lies in is not followed. At most :data:`MAX_FOLDERS`
    folders down to :data:`MAX_DEPTH` are entered. What is left out is said in a warning, as are unreadable folders. Blocks on disk.
    """
    if not os.path.isdir(directory):
        return [], {}
    excluded = set(excluded_dir_names or ())
    files: list[str] = []
    times: dict[str, float] = {}
    waiting: list[_Folder] = [_Folder(directory, "", ())]
    while waiting:
        here = waiting.pop()
        found = _entries(here)
        if found is None:
            continue
        entries, status = found
        times[here.path] = status.st_mtime
        files.extend(os.path.join(here.below, entry.name) for entry in entries if not _is_folder(entry))
        subfolders = [entry.name for entry in entries if _is_folder(entry) and entry.name not in excluded]
        if subfolders and (len(here.line) >= MAX_DEPTH or len(times) + len(waiting) >= MAX_FOLDERS):
            log.warning("Not listed: the folders in %s; there are too many, or they lie too deep", here.path)
            continue
        line = (*here.line, (status.st_dev, status.st_ino))
        waiting += [
            _Folder(os.path.join(here.path, name), os.path.join(here.below, name), line) for name in sorted(subfolders, reverse=True)
        ]
    return files, times


@dataclass(frozen=True, slots=True)
class _Folder:
    """One to be listed: *below* is its path relative to the start, *line* the (device, inode) of the folders it lies in."""

    path: str
    below: str
    line: tuple[tuple[int, int], ...]


def _entries(here: _Folder) -> tuple[list[os.DirEntry[str]], os.stat_result] | None:
    """What lies in *here*, by name; None where it cannot be read or is one of the folders it lies in."""
    try:
        status = os.stat(here.path)
        if (status.st_dev, status.st_ino) in here.line:
            return None
        with os.scandir(here.path) as entries:
            return sorted(entries, key=lambda entry: entry.name), status
    except OSError as error:
        _warn(error)
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _warn(error: OSError) -> None:
    log.warning("Skipped %s while listing files: %s", error.filename, error.strerror)


def with_extensions(files: Collection[str], extensions: Collection[str]) -> list[str]:
    """Those of *files* with one of *extensions* (lower case, with the dot), sorted; all of them when there are no extensions."""
    wanted = set(extensions)
    return sorted(name for name in files if not wanted or os.path.splitext(name)[-1].lower() in wanted)


@dataclass(frozen=True, slots=True)
class FileList:
    """One folder key's files as last seen."""

    names: tuple[str, ...]
    folder_times: dict[str, float]

    def is_current(self) -> bool:
        """Whether no folder seen then has changed since. Blocks on disk (one ``stat`` a folder)."""
        try:
            return all(os.path.getmtime(folder) == then for folder, then in self.folder_times.items())
        except OSError:
            return False
