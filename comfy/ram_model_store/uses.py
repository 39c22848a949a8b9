"""When which part of a store was used, by all servers: one small file, from which each of them knows what to keep.

Records are appended while the books are locked, and the older half goes when there are many. A record that is cut short, or was written by
a stranger, is passed over: uses decide what is kept, never what is right. Imports no torch.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from comfy.ram_model_store.folder import PART, OpenFolder

NAME, NEW_NAME = "uses", "uses.new"
RECORD = struct.Struct("<dQd8s8s16sB7x")  # seconds since the epoch, bytes, seconds, the three digests of a part's name, how it was found
MOST_BYTES = 4096 * RECORD.size


class Found(enum.IntEnum):
    """Where a part was when it was asked for."""

    NOWHERE = 0
    STORE = 1
    SERVER = 2


@dataclass(frozen=True, slots=True)
class Use:
    """The part *name* was asked for, *at_s* seconds after the epoch; its *size_bytes* and the *seconds* of reading it, 0 if not known."""

    name: str
    found: Found
    at_s: float
    size_bytes: int = 0
    seconds: float = 0.0

    def record(self) -> bytes:
        """As it is written down."""
        digests = [bytes.fromhex(part) for part in self.name.removesuffix(PART).split("-")]
        return RECORD.pack(self.at_s, self.size_bytes, self.seconds, *digests, self.found)


def note(folder: OpenFolder, uses: Iterable[Use]) -> None:
    """Write *uses* down. Call it with the books locked."""
    records = b"".join(use.record() for use in uses)
    if not records:
        return
    descriptor = _opened(folder, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes % RECORD.size:  # whoever wrote last died
            size_bytes -= size_bytes % RECORD.size
            os.ftruncate(descriptor, size_bytes)
        os.write(descriptor, records)
    finally:
        os.close(descriptor)
    if size_bytes + len(records) > MOST_BYTES:
        _shorten(folder)


def read(folder: OpenFolder) -> list[Use]:
    """What is written down, oldest first; nothing where there is nothing."""
    raw = _bytes(folder)
    known = {found.value for found in Found}
    found = []
    for at_s, size_bytes, seconds, *digests, where in RECORD.iter_unpack(raw[: len(raw) - len(raw) % RECORD.size]):
        if where in known:
            found.append(Use("-".join(part.hex() for part in digests) + PART, Found(where), at_s, size_bytes, seconds))
    return found


def _bytes(folder: OpenFolder) -> bytes:
    try:
        descriptor = _opened(folder, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, 2 * MOST_BYTES)
    finally:
        os.close(descriptor)


def _opened(folder: OpenFolder, flags: int) -> int:
    """The file; what has its name and is no plain file of this user goes."""
    with contextlib.suppress(OSError):
        descriptor = folder.open(NAME, flags & ~os.O_CREAT)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            return descriptor
        os.close(descriptor)
    if not flags & os.O_CREAT:
        raise FileNotFoundError(NAME)
    folder.remove(NAME)
    return folder.open(NAME, flags)


def _shorten(folder: OpenFolder) -> None:
    """Keep the newer half."""
    kept = _bytes(folder)[-(MOST_BYTES // 2 // RECORD.size) * RECORD.size :]
    folder.remove(NEW_NAME)
    descriptor = folder.open(NEW_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(descriptor, kept)
    finally:
        os.close(descriptor)
    folder.rename(NEW_NAME, NAME)
