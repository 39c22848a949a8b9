"""Checkouts of a few lines, three series that fit them and share a file, and processes that are killed while they change them."""

import hashlib
import itertools
import os
import signal
import subprocess
import tempfile

from patchset import commands
from patchset.checkout import open_checkout
from patchset.series.definition import Series
from patchset.statement_transforms import ReplaceStatement

FILES = {
    "comfyui_version.py": '__version__ = "0.30.0"\n',
    "execution.py": "one = 1\ntwo = 2\nthree = 3\n",
    "comfy/deep/first.py": "one = 1\n",
    "comfy/deep/third.py": "three = 3\n",
    "README.md": "text\n",
}


def _series(name, edits, files=()):
    return Series(name, f"Add {name}", "Why and how.", lambda version: [ReplaceStatement(*edit) for edit in edits], (), files, ())


SERIES = [
    _series("first", [("execution.py", "", "one = 1", "one = 11\n"), ("comfy/deep/first.py", "", "one = 1", "one = 11\n")]),
    _series("second", [("execution.py", "", "two = 2", "two = 22\n")], (("patchset/outcomes.py", "comfy/new/folder/__init__.py"),)),
    _series("third", [("execution.py", "", "three = 3", "three = 33\n"), ("comfy/deep/third.py", "", "three = 3", "three = 33\n")]),
]


KNOWN = {series.name: series for series in SERIES}


def git(root, *arguments):
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def make_checkout(root, with_git=True):
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    if with_git:
        git(root, "init", "-q", "-b", "master")
        git(root, "config", "user.name", "Ada")
        git(root, "config", "user.email", "ada@example.org")
        git(root, "config", "gc.auto", "0")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "start")
    return root


def state(root):
    """What is in every file, and in the state of git that a user sees; the names of empty folders too."""
    found = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(root.rglob("*"))
        if ".git" not in path.parts
    }
    if (root / ".git").is_dir():
        found["status"] = git(root, "status", "--porcelain")
        found["branch"] = git(root, "rev-parse", "--abbrev-ref", "HEAD")
        found["remembered"] = (root / ".git" / "keepwarm-patchset").exists()
    return found


def apply(root, **how):
    return commands.apply(open_checkout(root), how.pop("series", SERIES), known=KNOWN, **how)


def revert(root, series=None):
    return commands.revert(open_checkout(root), series or SERIES, KNOWN)


def killed_at(step, work):
    """Do *work* in a process that is killed before its file step or git call number *step*; whether it came that far."""
    child = os.fork()
    if not child:
        counted = itertools.count()

        def wrap(real):
            def stepping(*arguments, **more):
                if next(counted) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)

            return stepping

        for owner, names in (
            (os, ("replace", "unlink", "mkdir", "rmdir", "fsync", "chmod")),
            (tempfile, ("mkstemp",)),
            (subprocess, ("run",)),
        ):
            for name in names:
                setattr(owner, name, wrap(getattr(owner, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
