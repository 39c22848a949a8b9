"""Remembers what was written to a checkout and not committed, so that it can be undone byte for byte.

What was committed is not recorded: git has it (``patchset.layers`` finds it there).
"""

import base64
import json
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from patchset import tree_files
from patchset.checkout import Checkout
from patchset.outcomes import PatchsetError
from patchset.trees import FileChange

NAME, JOURNAL = "applied", "journal"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one series changed: by a commit, or without one. Those of a checkout lie on each other in the order they were made."""

    series: str
    changes: tuple[FileChange, ...]
    commit: str | None = None

    def change_of(self, path: str) -> FileChange | None:
        """Its change of *path*, if it has one."""
        return next((change for change in self.changes if change.path == path), None)


def save(checkout: Checkout, layers: Iterable[Layer]) -> None:
    """Write the record beside git's own data; without layers there is none."""
    rows = [{"series": layer.series, "changes": [_written(change) for change in layer.changes]} for layer in layers]
    if rows:
        tree_files.write_durably(checkout.state_file(NAME), json.dumps(rows).encode())
    for path in files(checkout):
        if not rows or path.stem != NAME:
            path.unlink(missing_ok=True)
            tree_files.sync_folder(path.parent)


def load(checkout: Checkout) -> list[Layer]:
    """What was applied and not committed, oldest first.

    Raises ``PatchsetError`` for an unreadable record, and for one that names files outside the checkout or behind links.
    """
    layers: list[Layer] = []
    for path in files(checkout):
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            # An older Keepwarm wrote one file per series, also of those it committed.
            layers += [_layer(row) for row in (rows if isinstance(rows, list) else [rows]) if not row.get("commit")]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PatchsetError(f"{path} is damaged ({error}); restore the files with git and delete it") from error
    for layer in layers:
        for change in layer.changes:
            tree_files.place(checkout.root, change.path)
    return layers


def files(checkout: Checkout) -> list[pathlib.Path]:
    """The files of the record: one, or as many as an older Keepwarm left."""
    folder = checkout.state_file(NAME).parent
    found = [path for path in folder.glob("*.json") if path.stem != JOURNAL]
    return sorted(found, key=lambda path: (path.stem != NAME, path.stat().st_mtime_ns))


def _layer(row: dict[str, Any]) -> Layer:
    changes = tuple(FileChange(str(each["path"]), _decode(each["before"]), _decode(each["after"])) for each in row["changes"])
    return Layer(str(row["series"]), changes)


def _written(change: FileChange) -> dict[str, str | None]:
    return {"path": change.path, "before": _encode(change.before), "after": _encode(change.after)}


def _encode(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _decode(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content, validate=True)
