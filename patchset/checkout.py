"""A ComfyUI checkout on disk: its version, its files, its git state."""

import os
import pathlib
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from patchset import tree_files
from patchset.outcomes import PatchsetError

OLDEST, NEWEST_TESTED = (0, 20), (0, 33)
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder that holds ComfyUI. Made by ``open_checkout``; reads the disk on every call."""

    root: pathlib.Path
    version: Version
    # Where what was applied is remembered: in git's own folder, or in a dot folder where there is no git.
    state_folder: pathlib.Path
    # Whether the folder is the top of a git work tree.
    is_git: bool

    @property
    def version_text(self) -> str:
        """The version as ComfyUI prints it."""
        return ".".join(map(str, self.version))

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None when it does not exist. Raises ``PatchsetError`` for a link, and for a name that leads elsewhere."""
        return tree_files.read(self.root, path)

    def git(self, *arguments: str, check: bool = True) -> str:
        """Run git in the checkout and return what it printed. Raises ``PatchsetError`` when it fails and *check* is set."""
        return _git(self.root, *arguments, check=check)

    def read_committed(self, commit: str, path: str) -> bytes | None:
        """*path* in *commit* as git would check it out; None where the commit, or the file in it, does not exist."""
        command = ["git", "-C", str(self.root), "cat-file", "--filters", f"{commit}:{path}"]
        done = subprocess.run(command, capture_output=True, check=False)
        return None if done.returncode else done.stdout

    def commits_titled(self, titles: Iterable[str]) -> list[tuple[str, str]]:
        """(commit, title) of the commits in the checked-out history whose title is or names one of *titles*, newest first."""
        wanted = [f"--grep={title}" for title in titles]
        rows = self.git("log", "--format=%H %s", "--fixed-strings", *wanted, "HEAD", "--", check=False).splitlines()
        return [(row[:40], row[41:]) for row in rows]

    def changed_files(self) -> list[str]:
        """Tracked files that differ from the last commit (staged or not)."""
        rows = self.git("status", "--porcelain", "--no-renames", "-z", "--untracked-files=no").split("\0")
        return [row[3:] for row in rows if row]

    def state_file(self, name: str) -> pathlib.Path:
        """A file of what is remembered. Raises ``PatchsetError`` where the folder is a link."""
        if tree_files.is_link(self.state_folder):
            raise PatchsetError(f"{self.state_folder} is a link; what was applied is remembered in a real folder only. Remove the link")
        return self.state_folder / f"{name}.json"


def open_checkout(folder: str | os.PathLike[str]) -> Checkout:
    """The checkout at *folder*. Raises ``PatchsetError`` when it holds no ComfyUI or an unsupported version."""
    root = pathlib.Path(folder).resolve()
    version_file = root / "comfyui_version.py"
    if not version_file.is_file() or not (root / "execution.py").is_file():
        raise PatchsetError(f"{root} holds no ComfyUI (comfyui_version.py and execution.py are not both there); name its folder")
    found = re.search(r'__version__\s*=\s*["\'](\d+)\.(\d+)\.(\d+)', version_file.read_text(encoding="utf-8"))
    if found is None:
        raise PatchsetError(f"{version_file} names no version such as 0.30.0")
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version[:2] < OLDEST:
        raise PatchsetError(f"ComfyUI {'.'.join(found.groups())} is not supported: 0.{OLDEST[1]} is the oldest. Update ComfyUI first.")
    top = _git(root, "rev-parse", "--show-toplevel", check=False)
    is_git = bool(top) and os.path.realpath(top) == os.path.realpath(root)
    folder = root / (_git(root, "rev-parse", "--git-path", "keepwarm-patchset") if is_git else ".keepwarm-patchset")
    return Checkout(root, version, folder, is_git)


def _git(root: pathlib.Path, *arguments: str, check: bool = True) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        if check:
            raise PatchsetError("git is not installed; install it, or leave out what needs it") from None
        return ""
    if check and done.returncode:
        raise PatchsetError(f"git {arguments[0]} failed in {root}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.rstrip("\n") if check or not done.returncode else ""
