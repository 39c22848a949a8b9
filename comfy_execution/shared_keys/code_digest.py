"""Which code a node runs: a digest of the Python files of its pack, and of the core."""

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator

from comfy_execution.signatures import framed
from utils.folder_walk import is_regular_file, walk
from utils.regular_files import open_regular

# Neither code of the pack itself nor stable: environments, repositories, caches.
SKIPPED_FOLDERS = frozenset(("__pycache__", ".git", ".venv", "venv", "node_modules", "site-packages"))
CORE_FOLDERS = ("comfy", "comfy_api", "comfy_execution", "comfy_extras")
CORE_FILES = ("execution.py", "folder_paths.py", "latent_preview.py", "node_helpers.py", "nodes.py", "comfyui_version.py")


def digest_files(root: str, paths: Iterable[str]) -> str:
    """A digest of the files' names below *root* and contents, the same on every machine. Blocks; raises ``OSError``."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with open_regular(path) as stream:
            content = stream.read()
        name = os.path.relpath(path, root).replace(os.sep, "/").encode("utf-8", "surrogateescape")
        digest.update(framed(b"", name) + framed(b"", content))
    return digest.hexdigest()


def python_files(folder: str) -> Iterator[str]:
    """Every ``*.py`` below *folder*, links followed: what lies behind them is imported too. Pipes and devices are not files."""
    for visited in walk(folder, wanted=lambda name: name not in SKIPPED_FOLDERS):
        yield from (entry.path for entry in visited.files if entry.name.endswith(".py") and is_regular_file(entry))


def core_digest(root: str) -> str:
    """The digest of the core whose top folder is *root*: what nodes may call, not the server around it."""
    paths = [path for folder in CORE_FOLDERS for path in python_files(os.path.join(root, folder))]
    return digest_files(root, paths + [path for name in CORE_FILES if os.path.isfile(path := os.path.join(root, name))])


class CodeDigests:
    """The digest of the pack that a node class comes from, each worked out once: code that is loaded does not change. Any thread."""

    def __init__(self, core_root: str, pack_folders: Collection[str]) -> None:
        """*pack_folders*: the folders that packs lie in."""
        self._core_root = os.path.realpath(core_root)
        self._pack_folders = [os.path.realpath(folder) for folder in pack_folders]
        self._by_file: dict[str, str | None] = {}
        self._by_pack: dict[str, str | None] = {}

    def of_class(self, class_def: type) -> str | None:
        """The digest for *class_def*; "core" for a class of the core, whose code belongs to the namespace; None when it has no file."""
        path = getattr(sys.modules.get(class_def.__module__), "__file__", None)
        if path is None:
            return None
        if path not in self._by_file:
            self._by_file[path] = self._of_file(os.path.realpath(path))
        return self._by_file[path]

    def _of_file(self, path: str) -> str | None:
        for folder in self._pack_folders:
            if path.startswith(folder + os.sep):
                return self._of_pack(os.path.join(folder, os.path.relpath(path, folder).split(os.sep)[0]))
        if path.startswith(tuple(os.path.join(self._core_root, name) + os.sep for name in CORE_FOLDERS)):
            return "core"
        return "core" if path == os.path.join(self._core_root, "nodes.py") else self._of_pack(path)

    def _of_pack(self, path: str) -> str | None:
        if path not in self._by_pack:
            try:
                is_folder = os.path.isdir(path)
                self._by_pack[path] = digest_files(
                    path if is_folder else os.path.dirname(path), python_files(path) if is_folder else [path]
                )
            except OSError:
                self._by_pack[path] = None
        return self._by_pack[path]
