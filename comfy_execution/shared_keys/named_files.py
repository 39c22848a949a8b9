"""Which files a node's text inputs name: models, pictures, embeddings."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_NAME_CHARS = 512
# Left alone when it stands in a prompt's text: what is behind it is read by the text encoder.
EMBEDDING = re.compile(r"embedding:([^\s,:()\[\]]+)")
EMBEDDING_SUFFIXES = ("", ".safetensors", ".pt", ".bin")
ANNOTATED = re.compile(r"^(.*?) ?\[(input|output|temp)\]$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FileRoots:
    """Where names are looked up: model folders by kind, and the folders of pictures by name (``input``, ``output``, ``temp``)."""

    models: Mapping[str, tuple[str, ...]]
    directories: Mapping[str, str]


@dataclass(slots=True)
class NamedFiles:
    """Finds files by the names in inputs; remembers each name for as long as it is in use (a prompt). Blocks on the file system."""

    roots: FileRoots
    _found: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def behind(self, value: Any) -> list[tuple[str, str]]:
        """(what for, path) of every file that a text in *value*, a constant input, names; the first per kind."""
        return [found for text in _texts(value) for found in self._behind_text(text)]

    def _behind_text(self, text: str) -> tuple[tuple[str, str], ...]:
        if text not in self._found:
            self._found[text] = tuple(self._find(text))
        return self._found[text]

    def _find(self, text: str) -> Iterator[tuple[str, str]]:
        if "embedding:" in text:
            for name in EMBEDDING.findall(text):
                names = [name.rstrip(".") + suffix for suffix in EMBEDDING_SUFFIXES] + [name]
                yield from self._first("embeddings", self.roots.models.get("embeddings", ()), names)
        if not text or len(text) > MAX_NAME_CHARS or "\n" in text or "\0" in text:
            return
        if os.path.isabs(text):
            if os.path.isfile(text):
                yield "absolute", text
            return
        if "." in text:
            for kind, folders in self.roots.models.items():
                yield from self._first(kind, folders, [text])
            yield from self._in_directories(text)
        else:
            yield from self._without_suffix(text)

    def _in_directories(self, text: str) -> Iterator[tuple[str, str]]:
        annotated = ANNOTATED.match(text)
        name, kind = (annotated[1], annotated[2]) if annotated else (text, "input")
        folder = self.roots.directories.get(kind)
        if folder is not None:
            yield from self._first(kind, [folder], [name])

    def _without_suffix(self, text: str) -> Iterator[tuple[str, str]]:
        """Names of folders of models, and of small autoencoders that are kept as several files with one beginning."""
        for folder in self.roots.models.get("diffusers", ()):
            for current, _, files in os.walk(os.path.join(folder, text)):
                yield from (("diffusers", os.path.join(current, name)) for name in sorted(files))
        for folder in self.roots.models.get("vae_approx", ()) if text.startswith("tae") else ():
            if os.path.isdir(folder):
                yield from (("vae_approx", os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.startswith(text))

    def _first(self, kind: str, folders: Iterable[str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
        for name in names:
            for folder in folders:
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    yield kind, path
                    return


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, list | tuple):
            waiting.extend(current)
        elif isinstance(current, dict):
            waiting.extend(current.values())
