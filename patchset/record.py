"""Remembers what was applied to a checkout, so that it can be undone byte for byte."""

import base64
import json
from dataclasses import dataclass

from patchset import tree_files
from patchset.checkout import Checkout
from patchset.outcomes import PatchsetError
from patchset.plan import FileChange

# The one file beside the records that is none.
JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Applied:
    """A series in a checkout: its file changes and, when it was committed, the commit and the branch before."""

    series: str
    changes: tuple[FileChange, ...]
    commit: str | None = None
    branch: str | None = None
    branch_before: str | None = None


def save(checkout: Checkout, applied: Applied) -> None:
    """Write the record beside git's own data."""
    document = {
        "series": applied.series,
        "commit": applied.commit,
        "branch": applied.branch,
        "branch_before": applied.branch_before,
        "changes": [{"path": change.path, "before": _encode(change.before), "after": _encode(change.after)} for change in applied.changes],
    }
    tree_files.write_durably(checkout.state_file(applied.series), json.dumps(document).encode())


def load(checkout: Checkout, series: str) -> Applied | None:
    """The record of *series*, or None when it was not applied by this tool.

    Raises ``PatchsetError`` for an unreadable record, and for one that names files outside the checkout or behind links.
    """
    path = checkout.state_file(series)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        changes = tuple(FileChange(row["path"], _decode(row["before"]), _decode(row["after"])) for row in document["changes"])
        applied = Applied(document["series"], changes, document["commit"], document["branch"], document["branch_before"])
        if applied.series != series or any(
            name.startswith("-") for name in (applied.commit, applied.branch, applied.branch_before) if name
        ):
            raise ValueError("it names what no record of this tool names")
    except (ValueError, KeyError, TypeError) as error:
        raise PatchsetError(f"{path} is damaged ({error}); restore the files with git and delete it") from error
    for change in applied.changes:
        tree_files.place(checkout.root, change.path)
    return applied


def load_all(checkout: Checkout) -> list[Applied]:
    """Every record there is. Raises as ``load`` does."""
    folder = checkout.state_file("any").parent
    names = [path.stem for path in sorted(folder.glob("*.json")) if path.stem != JOURNAL]
    return [applied for name in names if (applied := load(checkout, name)) is not None]


def forget(checkout: Checkout, series: str) -> None:
    """Delete the record of *series*."""
    path = checkout.state_file(series)
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def _encode(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _decode(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content, validate=True)
