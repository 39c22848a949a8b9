"""Which files a node's text inputs name: models, pictures, embeddings."""

import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.prompt_files.known_folders import FileRoots, FolderNames, folded
from utils.folder_walk import is_regular_file, regular_files_in, walk

MAX_NAME_CHARS = 512
# A folder that a text names counts with all its files; one with more is not looked through.
MAX_FOLDER_FILES = 1000
MAX_TEXTS = 10_000
# What a text names that lies in none of the known folders, or of which only a part was looked at. Its content is not read for it.
OUTSIDE = "outside"
# Left alone when it stands in a prompt's text: what is behind it is read by the text encoder.
EMBEDDING = re.compile(r"embedding:([^\s,:()\[\]]+)")
EMBEDDING_SUFFIXES = ("", ".safetensors", ".pt", ".bin")
# A text that looks like the name of a file, by its ending.
_FILE_LIKE = re.compile(r"\.[A-Za-z0-9_]{1,16}( ?\[(input|output|temp)\])?$")
ANNOTATED = re.compile(r"^(.*?) ?\[(input|output|temp)\]$", re.DOTALL)
# Names that say more than "this entry of the folder", so that no list of entries tells whether they are there.
_ODD = re.compile(r"^[./]|/[./]" + (r"|~\d|[\\:]|[ .]$" if os.name == "nt" else ""))

_Folders = list[tuple[str, str, frozenset[str] | None]]


@dataclass(slots=True)
class NamedFiles:
    """Finds files by the names in inputs; remembers each name for as long as it is in use (a prompt). Blocks on the file system."""

    roots: FileRoots
    names: FolderNames = field(default_factory=FolderNames)
    _found: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    _listed: tuple[_Folders, dict[str, _Folders]] | None = None

    def behind(self, value: Any) -> list[tuple[str, str]]:
        """(what for, path) of every file that a text in *value*, a constant input, names; the first per kind.

        The kind is that of a model folder, the name of a folder of pictures, ``"absolute"``, or :data:`OUTSIDE`. Only regular files are
        given, except for the last kind. Nothing in *value* raises.
        """
        if isinstance(value, str):
            return list(self._behind_text(value))
        texts = list(itertools.islice(_texts(value), MAX_TEXTS + 1))
        found = [found for text in texts[:MAX_TEXTS] for found in self._behind_text(text)]
        return found if len(texts) <= MAX_TEXTS else [*found, (OUTSIDE, f"more than {MAX_TEXTS} texts in one input")]

    def absent(self, value: Any) -> list[str]:
        """The texts in *value* that look like names of files, or name embeddings, of which not all are there."""
        return [text for text in itertools.islice(_texts(value), MAX_TEXTS) if self._is_absent(text)]

    def _is_absent(self, text: str) -> bool:
        found = self._behind_text(text)
        if "embedding:" in text:
            return sum(kind == "embeddings" for kind, _ in found) < len(EMBEDDING.findall(text))
        return not found and len(text) <= MAX_NAME_CHARS and _FILE_LIKE.search(text) is not None

    def _behind_text(self, text: str) -> tuple[tuple[str, str], ...]:
        if text not in self._found:
            try:
                self._found[text] = tuple(self._find(text))
            except ValueError:
                # No file system has such a name (half of a surrogate pair).
                self._found[text] = ()
        return self._found[text]

    def _find(self, text: str) -> Iterator[tuple[str, str]]:
        if "embedding:" in text:
            for name in EMBEDDING.findall(text):
                names = [name.rstrip(".") + suffix for suffix in EMBEDDING_SUFFIXES] + [name]
                yield from _first("embeddings", self.roots.models.get("embeddings", ()), names)
        if not text or len(text) > MAX_NAME_CHARS or "\n" in text or "\0" in text:
            return
        if os.path.isabs(text):
            yield from self._absolute(text)
        models, directories = self._folders()
        plain = os.path.relpath(os.path.join("/", text), "/") if _ODD.search(text) else text
        if plain == ".":
            return
        yield from self._in_models(text, plain, models)
        annotated = ANNOTATED.match(text)
        name, kind = (annotated[1], annotated[2]) if annotated else (text, "input")
        yield from self._in_directory(name, directories.get(kind, []))

    def _folders(self) -> tuple[_Folders, dict[str, _Folders]]:
        """(kind, folder, its names) of every folder in which there is something: those of models, and those of pictures by name."""
        if self._listed is None:
            models = self._list((kind, folder) for kind, folders in self.roots.models.items() for folder in folders)
            directories = {kind: self._list([(kind, folder)]) for kind, folder in self.roots.directories.items()}
            self._listed = models, directories
        return self._listed

    def _list(self, folders: Iterable[tuple[str, str]]) -> _Folders:
        listed = ((kind, folder, self.names.of(folder)) for kind, folder in folders)
        return [(kind, folder, names) for kind, folder, names in listed if names is None or names]

    def _in_models(self, text: str, plain: str, folders: _Folders) -> Iterator[tuple[str, str]]:
        beginning = _beginning(text)
        found: set[str] = set()
        for kind, folder, names in folders:
            if beginning is not None and names is not None and beginning not in names:
                continue
            if kind == "diffusers":
                yield from _folder_files(kind, os.path.join(folder, plain))
            spellings = (plain,) if os.path.isabs(text) else dict.fromkeys((text, plain))
            if kind not in found and (first := next(_first(kind, [folder], spellings), None)) is not None:
                found.add(kind)
                yield first
        # Small autoencoders are kept as several files with one beginning.
        for folder in self.roots.models.get("vae_approx", ()) if text.startswith("tae") else ():
            files = sorted(regular_files_in(folder), key=lambda entry: entry.name)
            yield from (("vae_approx", entry.path) for entry in files if entry.name != text and entry.name.startswith(text))

    def _in_directory(self, name: str, folders: _Folders) -> Iterator[tuple[str, str]]:
        beginning = _beginning(name)
        for kind, folder, names in folders:
            if name and not os.path.isabs(name) and (beginning is None or names is None or beginning in names):
                yield from _first(kind, [folder], [name])
                yield from _folder_files(kind, os.path.join(folder, name)) if beginning is not None else ()

    def _absolute(self, text: str) -> Iterator[tuple[str, str]]:
        try:
            mode = os.stat(text).st_mode
        except OSError:
            return
        if stat.S_ISDIR(mode):
            return
        path = os.path.normpath(text)
        known = [folder for folders in self.roots.models.values() for folder in folders] + [*self.roots.directories.values()]
        is_known = _lies_in(path, known) or _lies_in(path, map(os.path.realpath, known))
        yield "absolute" if is_known and stat.S_ISREG(mode) else OUTSIDE, text


def _beginning(name: str) -> str | None:
    """The first part of *name* as it stands in a list of names; None when it may be anywhere."""
    return None if _ODD.search(name) else folded(name.split("/", 1)[0])


def _lies_in(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(os.path.join(folder, "")) for folder in folders)


def _first(kind: str, folders: Iterable[str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        for folder in folders:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                yield kind, path
                return


def _folder_files(kind: str, path: str) -> Iterator[tuple[str, str]]:
    """The files in the folder at *path*, if there is one; one of kind :data:`OUTSIDE` instead of those that are too many."""
    if not os.path.isdir(path):
        return
    files = (entry.path for visited in walk(path, wanted=_is_shown) for entry in visited.files if is_regular_file(entry))
    found = list(itertools.islice(files, MAX_FOLDER_FILES + 1))
    yield from ((kind, file) for file in found) if len(found) <= MAX_FOLDER_FILES else ((OUTSIDE, path),)


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _texts(value: Any) -> Iterator[str]:
    waiting, seen = [value], set()
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, list | tuple | dict) and id(current) not in seen:
            seen.add(id(current))
            waiting.extend(current.values() if isinstance(current, dict) else current)
