"""A ComfyUI checkout on disk: its version, its files, its git state."""

import os
import pathlib
import re
import subprocess
from dataclasses import dataclass

from patchset import tree_files
from patchset.outcomes import PatchsetError

OLDEST, NEWEST_TESTED = (0, 21), (0, 30)
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder that holds ComfyUI. Made by ``open_checkout``; reads the disk on every call."""

    root: pathlib.Path
    version: Version

    @property
    def version_text(self) -> str:
        """The version as ComfyUI prints it."""
        return ".".join(map(str, self.version))

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None when it does not exist. Raises ``PatchsetError`` for a link, and for a name that leads elsewhere."""
        return tree_files.read(self.root, path)

    def git(self, *arguments: str, check: bool = True) -> str:
        """Run git in the checkout and return what it printed. Raises ``PatchsetError`` when it fails and *check* is set."""
        done = subprocess.run(["git", "-C", str(self.root), *arguments], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise PatchsetError(f"git {' '.join(arguments)} failed in {self.root}: {(done.stderr or done.stdout).strip()}")
        return done.stdout.rstrip("\n")

    @property
    def is_git(self) -> bool:
        """Whether the folder is the top of a git work tree."""
        top = self.git("rev-parse", "--show-toplevel", check=False)
        return bool(top) and os.path.realpath(top) == os.path.realpath(self.root)

    def has_in_history(self, commit: str) -> bool:
        """Whether *commit* is checked out, or an ancestor of what is."""
        return self.is_git and self.git("merge-base", commit, "HEAD", check=False) == self.git("rev-parse", "--verify", commit, check=False)

    def changed_files(self) -> list[str]:
        """Tracked files that differ from the last commit (staged or not)."""
        return [line[3:] for line in self.git("status", "--porcelain", "--untracked-files=no").splitlines()]

    def state_file(self, series: str) -> pathlib.Path:
        """Where what was applied is remembered: inside git's own folder, or in a dot folder when there is no git."""
        if self.is_git:
            folder = self.root / self.git("rev-parse", "--git-path", "keepwarm-patchset")
        else:
            folder = self.root / ".keepwarm-patchset"
        if tree_files.is_link(folder):
            raise PatchsetError(f"{folder} is a link; what was applied is remembered in a real folder only. Remove the link")
        return folder / f"{series}.json"


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
    return Checkout(root, version)
