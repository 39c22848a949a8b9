"""The model files that loader nodes can name, with their sizes."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..preload.config import KINDS
from .rows import Action, Row, Tier

NO_MODELS = ("custom_nodes", "configs")
_PRELOADABLE = {kind.folder for kind in KINDS.values()}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model folder, named as loader nodes name it."""

    folder: str
    name: str
    path: str
    size_bytes: int

    @property
    def id(self) -> str:
        """Its row's."""
        return f"file:{self.folder}/{self.name}"

    def row(self) -> Row:
        """The file as a row."""
        actions = (Action.PRELOAD,) if self.folder in _PRELOADABLE else ()
        files = ((self.folder, self.name),)
        return Row(self.id, self.name, self.folder, files, Tier.DISK, disk_bytes=self.size_bytes, actions=actions)


class ModelFiles:
    """An index of all model folders, read again when it is older than asked for. Any thread; reading blocks."""

    def __init__(self, folders: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """*folders*: the module ``folder_paths``."""
        self._folders, self._clock = folders, clock
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._files: dict[str, ModelFile] = {}
        self._by_path: dict[str, tuple[tuple[str, str], ...]] = {}

    def refresh(self, max_age_s: float) -> None:
        """Read the folders, unless that was done less than *max_age_s* ago."""
        with self._lock:
            if self._clock() - self._read_s < max_age_s:
                return
            found = list(self._walk())
            by_path: dict[str, list[ModelFile]] = {}
            for file in found:
                by_path.setdefault(file.path, []).append(file)
            # A file that several folders list is one row, under the first of them.
            self._files = {files[0].id: files[0] for files in by_path.values()}
            self._by_path = {path: tuple((file.folder, file.name) for file in files) for path, files in by_path.items()}
            self._read_s = self._clock()

    def all(self) -> list[ModelFile]:
        """Every file, each once."""
        return list(self._files.values())

    def find(self, row_id: str) -> ModelFile | None:
        """The file whose row is *row_id*."""
        return self._files.get(row_id)

    def named(self, paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """(folder, name) of each of the real *paths*, under every folder that lists it; none for files elsewhere."""
        return tuple(name for path in paths for name in self._by_path.get(path, ()))

    def _walk(self) -> Iterable[ModelFile]:
        for folder in list(self._folders.folder_names_and_paths):
            if folder in NO_MODELS:
                continue
            for name in self._folders.get_filename_list(folder):
                path = self._folders.get_full_path(folder, name)
                try:
                    yield ModelFile(folder, name, os.path.realpath(path), os.path.getsize(path))
                except (OSError, TypeError):  # gone since it was listed
                    continue
