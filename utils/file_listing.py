"""Lists of the files below a folder, remembered until one of its folders changes."""

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass

log = logging.getLogger(__name__)

Listing = tuple[list[str], dict[str, float]]


def recursive_search(directory: str, excluded_dir_names: Collection[str] | None = None) -> Listing:
    """Every file below *directory*, links followed, and the modification time of every folder met.

    Returns (paths relative to *directory*, {folder: mtime in seconds}); ``([], {})`` when it does not exist. A folder reached twice
    through links is entered once. Unreadable folders are skipped with a warning. Blocks on disk.
    """
    if not os.path.isdir(directory):
        return [], {}
    excluded = set(excluded_dir_names or ())
    files: list[str] = []
    times: dict[str, float] = {}
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(directory, followlinks=True, onerror=_warn):
        try:
            status = os.stat(folder)
        except OSError as error:
            _warn(error)
            continue
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        times[folder] = status.st_mtime
        subfolders[:] = sorted(name for name in subfolders if name not in excluded)
        below = os.path.relpath(folder, directory)
        files.extend(name if below == "." else os.path.join(below, name) for name in names)
    return files, times


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
