"""Whether files that lie on another mount after a restore are those that were read before the snapshot."""

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells a file's contents wherever it lies: bytes, time of the last write, and samples of what is in it."""

    size: int
    mtime_ns: int
    fingerprint: str


class FileMarks:
    """Marks of files by path. One thread at a time; blocks for reads of some KiB per tensor."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}

    def take(self, paths: Iterable[str]) -> None:
        """Mark the files as they are now; one that cannot be read has no mark."""
        for path in paths:
            real = os.path.realpath(path)
            mark = _mark(real)
            if mark is not None:
                self._marks[real] = mark

    def is_same(self, path: str) -> bool:
        """Whether the file at *path* was marked, and holds what it held then. The time of the last write counts too."""
        real = os.path.realpath(path)
        before = self._marks.get(real)
        return before is not None and _mark(real) == before

    def renamed(self, key: Any) -> Any:
        """*key*, of a model in the RAM model cache, with its files' identities as they are now, if all of them are the same files."""
        files = getattr(key, "files", ())
        if not files or key.is_current() or not all(self.is_same(file.path) for file in files):
            return key
        keys = importlib.import_module(type(key).__module__)
        return keys.WeightsKey(key.component, tuple(keys.FileIdentity.of(file.path) for file in files), key.options)


def _mark(path: str) -> Mark | None:
    try:
        content_fingerprint = importlib.import_module("comfy.ram_model_cache.weights_key").content_fingerprint
        status = os.stat(path)
        return Mark(status.st_size, status.st_mtime_ns, content_fingerprint(path))
    except (ImportError, OSError, RuntimeError):
        return None
