"""Where a plan reads files from: a checkout with changes that are only thought of, or what a commit has."""

import difflib
import pathlib
from dataclasses import dataclass
from typing import Protocol

from patchset.checkout import Checkout, Version


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file: its bytes before (None: it did not exist) and after (None: it is removed)."""

    path: str
    before: bytes | None
    after: bytes | None

    @property
    def changes_nothing(self) -> bool:
        """Whether both sides are equal."""
        return self.before == self.after

    def diff(self) -> str:
        """The change as a unified diff."""
        old, new = ((side or b"").decode("utf-8").splitlines(keepends=True) for side in (self.before, self.after))
        return "".join(
            difflib.unified_diff(
                old, new, "/dev/null" if self.before is None else f"a/{self.path}", "/dev/null" if self.after is None else f"b/{self.path}"
            )
        )


class Tree(Protocol):
    """Files by name, of one version of ComfyUI."""

    @property
    def root(self) -> pathlib.Path: ...

    @property
    def version(self) -> Version: ...

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None when there is none."""


class Overlay:
    """A tree with changes in memory."""

    def __init__(self, below: Tree) -> None:
        self._below = below
        self._held: dict[str, bytes | None] = {}
        self.root, self.version = below.root, below.version

    def read(self, path: str) -> bytes | None:
        """What was put there, else what the tree has."""
        return self._held[path] if path in self._held else self._below.read(path)

    def put(self, path: str, content: bytes | None) -> None:
        """Think of *path* as having *content*; None: as not being there."""
        self._held[path] = content

    def changes(self) -> tuple[FileChange, ...]:
        """What differs from the tree."""
        rows = (FileChange(path, self._below.read(path), content) for path, content in self._held.items())
        return tuple(change for change in rows if not change.changes_nothing)


class CommitTree:
    """The files of a commit, as git would check them out."""

    def __init__(self, checkout: Checkout, commit: str = "HEAD") -> None:
        self._checkout, self._commit = checkout, commit
        self._read: dict[str, bytes | None] = {}
        self.root, self.version = checkout.root, checkout.version

    def read(self, path: str) -> bytes | None:
        """The file in that commit; None where it has none."""
        if path not in self._read:
            self._read[path] = self._checkout.read_committed(self._commit, path)
        return self._read[path]
