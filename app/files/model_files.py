"""Listing model files with their size and times."""

import os
from collections.abc import Iterator
from typing import Any

import folder_paths


def list_model_files(folder_name: str) -> list[dict[str, Any]]:
    """``[{name, pathIndex, modified, created, size}]`` of every model file of the folder key *folder_name*.

    ``name`` is relative to the directory number ``pathIndex`` of that key, times are in seconds, size is in bytes. Hidden
    files and folders are left out; links are followed. Blocks on the disk. Raises ``KeyError`` for an unknown key.
    """
    directories, _ = folder_paths.folder_names_and_paths[folder_paths.map_legacy(folder_name)]
    listed: list[dict[str, Any]] = []
    for index, directory in enumerate(directories):
        for name, status in _walk(os.fspath(directory), "", set()):
            listed.append(
                {"name": name, "pathIndex": index, "modified": status.st_mtime, "created": status.st_ctime, "size": status.st_size}
            )
    return listed


def _walk(directory: str, prefix: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield model files below *directory*; *above* holds the folders on the way here, so that a link cannot loop."""
    try:
        status = os.stat(directory)
        with os.scandir(directory) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above and identity != (0, 0):
        return
    for entry in entries:
        try:
            if entry.is_dir():
                yield from _walk(entry.path, os.path.join(prefix, entry.name), above | {identity})
            elif os.path.splitext(entry.name)[1].lower() in folder_paths.supported_pt_extensions:
                yield os.path.join(prefix, entry.name), entry.stat()
        except OSError:
            continue
