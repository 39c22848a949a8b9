"""Makes what ``apply`` and ``revert`` do whole or undone, also when the process is killed or the machine goes down in the middle.

Before anything is changed a journal is written beside the records: every file with its bytes before and digests of what it may become,
the records as they are, the commit and the branch. It is deleted when all is done. One that is found means that something was
interrupted: ``heal`` puts everything back. Each step of that may be interrupted again and repeated.
"""

import base64
import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from patchset import record, tree_files
from patchset.checkout import Checkout
from patchset.outcomes import PatchsetError
from patchset.trees import FileChange

NAME = record.JOURNAL
GIT_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Journal:
    """What is about to happen. *what* says it in a word; *series* are those whose records change, *subjects* the commits' titles.

    *start* is the commit before ("" without git), *branch* a branch that is made, *branch_before* the one that was checked out.
    """

    what: str
    series: tuple[str, ...]
    subjects: tuple[str, ...]
    changes: tuple[FileChange, ...]
    start: str = ""
    branch: str | None = None
    branch_before: str | None = None


@contextlib.contextmanager
def alone(checkout: Checkout) -> Iterator[None]:
    """Keep other processes of this tool off the checkout. Raises ``PatchsetError`` when one is at work there."""
    try:
        fcntl: Any = importlib.import_module("fcntl")
    except ImportError:  # Windows
        yield
        return
    path = checkout.state_file("lock").with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PatchsetError(f"another process is changing {checkout.root}; wait for it to end") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # records are in it
                path.parent.rmdir()


@contextlib.contextmanager
def whole_or_not(checkout: Checkout, journal: Journal) -> Iterator[None]:
    """Do the block whole; whatever it raises, everything is put back first. Raises ``PatchsetError`` instead of ``OSError``."""
    path = checkout.state_file(NAME)
    document = _document(checkout, journal)
    try:
        tree_files.write_durably(path, json.dumps(document).encode())
    except OSError as error:
        raise PatchsetError(f"{path}: {error.strerror}; nothing was changed") from error
    try:
        yield
    except OSError as error:
        _put_back(checkout, document)
        raise PatchsetError(f"{error.filename}: {error.strerror}; everything was put back as it was") from error
    except BaseException:
        _put_back(checkout, document)
        raise
    _delete(path)


def is_open(checkout: Checkout) -> bool:
    """Whether something was interrupted, or is under way."""
    return checkout.state_file(NAME).is_file()


def require_none(checkout: Checkout) -> None:
    """Raise ``PatchsetError`` where something was interrupted."""
    if is_open(checkout):
        raise PatchsetError(f"something was interrupted in {checkout.root}; revert puts it back as it was (so does the next apply, first)")


def heal(checkout: Checkout) -> list[str]:
    """Put back what was interrupted; says so in a line. Raises ``PatchsetError`` where that would overwrite somebody's work."""
    path = checkout.state_file(NAME)
    for left_over in path.parent.glob(f".*{tree_files.TEMPORARY_SUFFIX}"):
        left_over.unlink(missing_ok=True)
    if not path.is_file():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        told = f"{document['what']} of {', '.join(document['series'])} was interrupted; everything was put back as it was"
    except (ValueError, KeyError, TypeError) as error:
        raise PatchsetError(f"{path} is damaged ({error}); restore the files with git and delete it") from error
    _put_back(checkout, document)
    return [told]


def _document(checkout: Checkout, journal: Journal) -> dict[str, Any]:
    befores: dict[str, bytes | None] = {}
    expected: dict[str, set[str]] = {}
    for change in journal.changes:
        befores.setdefault(change.path, change.before)
        expected.setdefault(change.path, {_digest(change.before)}).add(_digest(change.after))
    return {
        "what": journal.what,
        "series": list(journal.series),
        "subjects": list(journal.subjects),
        "start": journal.start,
        "branch": journal.branch,
        "branch_before": journal.branch_before,
        "records": {path.stem: _encode(path.read_bytes()) for path in record.files(checkout)},
        "files": [{"path": path, "before": _encode(before), "expected": sorted(expected[path])} for path, before in befores.items()],
    }


def _put_back(checkout: Checkout, document: dict[str, Any]) -> None:
    """Files, commits, branch and records as the journal has them, then the journal's end."""
    try:
        files = {row["path"]: _decode(row["before"]) for row in document["files"]}
        foreign = [row["path"] for row in document["files"] if _digest(checkout.read(row["path"])) not in row["expected"]]
        records = {checkout.state_file(_plain(name)): base64.b64decode(text) for name, text in document["records"].items()}
        start, branch, before = document["start"], document["branch"], document["branch_before"]
        subjects = document["subjects"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PatchsetError(f"{checkout.state_file(NAME)} is damaged ({error}); restore the files with git and delete it") from error
    if foreign:
        raise PatchsetError(
            f"{document['what']} was interrupted, and these files were changed since: {', '.join(foreign)}. Undo those changes first, "
            f"so that nothing of yours is lost (or restore the files with git and delete {checkout.state_file(NAME)})"
        )
    if start:
        _wait_for_git(checkout)
        _require_own_commits(checkout, start, subjects)
    for path, content in files.items():
        if checkout.read(path) != content:
            tree_files.write(checkout.root, path, content)
        tree_files.remove_left_over(checkout.root, path)
    if start:
        _put_back_commits(checkout, files, start, branch, before)
    for path_of, data in records.items():
        tree_files.write_durably(path_of, data)
    for path_of in record.files(checkout):
        if path_of not in records:
            path_of.unlink()
    _delete(checkout.state_file(NAME))


def _require_own_commits(checkout: Checkout, start: str, subjects: list[str]) -> None:
    """Raise ``PatchsetError`` where there is more on top of *start* than this tool's commits."""
    made = checkout.git("log", "--format=%s", f"{start}..HEAD", "--").splitlines()
    behind = checkout.git("log", "--format=%h", f"HEAD..{start}", "--")
    if behind or not set(made) <= set(subjects):
        raise PatchsetError(
            f"something was interrupted, and other commits were made or checked out since. Check out {start[:12]} again, then repeat this"
        )


def _put_back_commits(checkout: Checkout, paths: Iterable[str], start: str, branch: str | None, before: str | None) -> None:
    if checkout.git("rev-parse", "HEAD") != start:
        checkout.git("reset", "-q", "--soft", start)
    checkout.git("reset", "-q", "--", *paths)
    if branch is None or not checkout.git("branch", "--list", branch):
        return
    if checkout.git("symbolic-ref", "--short", "HEAD", check=False) == branch:
        checkout.git("switch", "-q", *([before] if before else ["--detach", start]))
    checkout.git("branch", "-q", "-D", branch)


def _wait_for_git(checkout: Checkout) -> None:
    """Let a git that was started before an interruption finish. Raises ``PatchsetError`` where it left its lock behind."""
    lock = checkout.root / checkout.git("rev-parse", "--git-path", "index.lock")
    until_s = time.monotonic() + GIT_WAIT_S
    while lock.exists():
        if time.monotonic() > until_s:
            raise PatchsetError(f"git is at work in {checkout.root}, or was killed there; if none runs, delete {lock} and repeat this")
        time.sleep(0.05)


def _plain(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"{name!r} is no name of a record")
    return name


def _delete(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    tree_files.sync_folder(path.parent)
    with contextlib.suppress(OSError):  # records are in it
        os.rmdir(path.parent)


def _digest(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _encode(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _decode(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content, validate=True)
