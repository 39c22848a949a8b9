"""Lists the files below a folder and remembers the list until one of its folders changes."""

import os
from collections.abc import Collection
from dataclasses import dataclass

from utils.folder_walk import walk

Listing = tuple[list[str], dict[str, float]]


def recursive_search(directory: str, excluded_dir_names: Collection[str] | None = None) -> Listing:
    """Every file below *directory*, links followed, and the modification time of every folder met.

    Returns (paths relative to *directory*, {folder: mtime in seconds}); ``([], {})`` when it does not exist. What is followed and what
    is left out: :func:`utils.folder_walk.walk`. Blocks on disk.
    """
    if not os.path.isdir(directory):
        return [], {}
    excluded = set(excluded_dir_names or ())
    files: list[str] = []
    times: dict[str, float] = {}
    for visited in walk(directory, wanted=lambda name: name not in excluded):
        times[visited.path] = visited.status.st_mtime
        files.extend(os.path.join(visited.below, entry.name) for entry in visited.files)
    return files, times


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
