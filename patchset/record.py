"""Remembers what was applied to a checkout, so that it can be undone byte for byte."""

import base64
import json
from dataclasses import dataclass

from patchset.checkout import Checkout
from patchset.outcomes import PatchsetError
from patchset.plan import FileChange


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
    path = checkout.state_file(applied.series)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "series": applied.series,
        "commit": applied.commit,
        "branch": applied.branch,
        "branch_before": applied.branch_before,
        "changes": [{"path": change.path, "before": _encode(change.before), "after": _encode(change.after)} for change in applied.changes],
    }
    path.write_text(json.dumps(document), encoding="utf-8")


def load(checkout: Checkout, series: str) -> Applied | None:
    """The record of *series*, or None when it was not applied by this tool. Raises ``PatchsetError`` for an unreadable record."""
    path = checkout.state_file(series)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        changes = tuple(FileChange(row["path"], _decode(row["before"]), _decode(row["after"])) for row in document["changes"])
        return Applied(document["series"], changes, document["commit"], document["branch"], document["branch_before"])
    except (ValueError, KeyError, TypeError) as error:
        raise PatchsetError(f"{path} is damaged ({error}); restore the files with git and delete it") from error


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
