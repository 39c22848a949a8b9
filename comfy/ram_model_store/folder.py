"""The folder of a store: its safety, its files, and which folder ``auto`` means. Imports no torch.

The folder belongs to this user alone (mode 0700), and so do its files (0600). Every operation opens it anew, without following links, and
works relative to what it opened, so that a folder that was deleted or replaced meanwhile is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from comfy.units import GIB, megabytes

SHARED_MEMORY = "/dev/shm"
AUTO_LEAST_BYTES = GIB
MOUNTS = "/proc/self/mountinfo"
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
PART, WRITING = ".weights", ".writing"
PART_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{32}\.weights")
WRITING_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{32}\.[0-9a-f]{16}\.writing")
NO_LINKS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)  # Windows has neither
OTHERS = 0o077


class StoreRefused(RuntimeError):
    """A folder that is not used as a store; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """The folder, opened as *descriptor* for one operation."""

    descriptor: int

    def open(self, name: str, flags: int) -> int:
        """Open the file *name* without following a link, or waiting for the other end of a pipe; a new one is this user's alone."""
        return os.open(name, flags | NO_LINKS | os.O_NONBLOCK, 0o600, dir_fd=self.descriptor)

    def names(self, pattern: re.Pattern[str]) -> list[str]:
        """The names that *pattern* matches whole, sorted."""
        return sorted(name for name in os.listdir(self.descriptor) if pattern.fullmatch(name))

    def size_bytes(self, name: str) -> int:
        """Memory that the file *name* takes, or is meant to take; 0 when it is gone."""
        try:
            status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        return max(status.st_size, status.st_blocks * 512)

    def remove(self, name: str) -> bool:
        """Take *name* out of the folder, whatever it is; whether it was there. An empty or full folder of that name stays."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            return False
        return True

    def rename(self, old: str, new: str) -> None:
        """Put *old* in the place of *new* in one step."""
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def free_bytes(self) -> int:
        """Bytes that its file system still has."""
        status = os.statvfs(self.descriptor)
        return status.f_bavail * status.f_frsize


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """The folder *path* as a store. *needs_memory*: whether to refuse one that lies on a disk."""

    path: str
    needs_memory: bool = True

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenFolder]:
        """The folder for one operation; it is made where it is missing. Raises :class:`StoreRefused`, and ``OSError``."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | NO_LINKS)
        except OSError as error:
            raise StoreRefused(f"{self.path} cannot be used as a folder for models ({error.strerror}); a link is not followed") from error
        try:
            self._check(descriptor)
            yield OpenFolder(descriptor)
        finally:
            os.close(descriptor)

    def _check(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise StoreRefused(f"{self.path} belongs to user {status.st_uid}, this server runs as {os.geteuid()}; name a folder of its own")
        if stat.S_IMODE(status.st_mode) & OTHERS:
            raise StoreRefused(
                f"{self.path} has mode {stat.S_IMODE(status.st_mode):04o}: others may look in; chmod it to 0700 if it is yours"
            )
        if self.needs_memory and (kind := file_system_of(status.st_dev)) not in MEMORY_FILE_SYSTEMS:
            raise StoreRefused(f"{self.path} lies on {kind or 'an unknown file system'}, not in memory; name a folder of a tmpfs")

    def total_bytes(self) -> int:
        """Bytes that its file system can hold."""
        with self.opened() as folder:
            status = os.statvfs(folder.descriptor)
            return status.f_blocks * status.f_frsize


def file_system_of(device: int, mounts: str = MOUNTS) -> str:
    """The kind of file system that *device* is mounted as, "" where the system does not tell (Linux, proc(5))."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) > 4 and words[2] == wanted and "-" in words:
                return words[words.index("-") + 1]
    return ""


def auto_folder(shared_memory: str = SHARED_MEMORY) -> StoreFolder:
    """This user's folder in the system's shared memory. Raises :class:`StoreRefused` where that is no tmpfs, or has no room."""
    try:
        status = os.statvfs(shared_memory)
        kind = file_system_of(os.stat(shared_memory).st_dev)
    except OSError as error:
        raise StoreRefused(f"{shared_memory} cannot be used ({error.strerror}); name a folder of a tmpfs") from error
    if kind not in MEMORY_FILE_SYSTEMS:
        raise StoreRefused(f"{shared_memory} is {kind or 'no file system'}, not a tmpfs; name a folder of one")
    size_bytes = status.f_blocks * status.f_frsize
    if size_bytes < AUTO_LEAST_BYTES:
        raise StoreRefused(
            f"{shared_memory} holds {megabytes(size_bytes)} only; give the container more (--shm-size, or a volume in memory)"
        )
    return StoreFolder(os.path.join(shared_memory, f"keepwarm-{os.geteuid()}"))


def part_name(place: str, files: str, rest: str) -> str:
    """The file name for a part: of which place, of which state of its files, and what else distinguishes it; each any text."""
    return f"{_hex(place, 8)}-{_hex(files, 8)}-{_hex(rest, 16)}{PART}"


def same_place_other_files(name: str, other: str) -> bool:
    """Whether both names are of one place, but of other states of its files."""
    return name[:16] == other[:16] and name[17:33] != other[17:33]


def _hex(text: str, size_bytes: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size_bytes).hexdigest()
