"""Listing model files with their size and times."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import folder_paths
from utils.folder_walk import is_regular_file, walk


def list_model_files(folder_name: str) -> list[dict[str, Any]]:
    """``[{name, pathIndex, modified, created, size}]`` of every model file of the folder key *folder_name*.

    ``name`` is relative to the directory number ``pathIndex`` of that key, times are in seconds, size is in bytes. Hidden
    files and folders are left out; links are followed. Blocks on the disk. Raises ``KeyError`` for an unknown key.
    """
    directories, _ = folder_paths.folder_names_and_paths[folder_paths.map_legacy(folder_name)]
    listed: list[dict[str, Any]] = []
    for index, directory in enumerate(directories):
        for name, status in _models_below(os.fspath(directory)):
            listed.append(
                {"name": name, "pathIndex": index, "modified": status.st_mtime, "created": status.st_ctime, "size": status.st_size}
            )
    return listed


def _models_below(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    if not os.path.isdir(directory):
        return
    for visited in walk(directory, wanted=lambda name: not name.startswith(".")):
        for entry in visited.files:
            if entry.name.startswith(".") or os.path.splitext(entry.name)[1].lower() not in folder_paths.supported_pt_extensions:
                continue
            with contextlib.suppress(OSError):
                if is_regular_file(entry):
                    yield os.path.join(visited.below, entry.name), entry.stat()
