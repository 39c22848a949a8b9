"""What a store holds, for status pages, and whether its books are right. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from comfy.ram_model_store import locks, uses
from comfy.ram_model_store.folder import PART_NAME, WRITING_NAME, OpenFolder, StoreRefused
from comfy.ram_model_store.locks import StoreBusy
from comfy.ram_model_store.mapping import check_file
from comfy.ram_model_store.part_format import PAGE_BYTES, Head, PartTable, StoredPartError, read_head, read_table
from comfy.ram_model_store.room import StoreRoom
from comfy.ram_model_store.store import RamModelStore
from comfy.ram_model_store.uses import Found

LOCKS = "/proc/locks"
OWN_NAMES = {locks.NAME, uses.NAME, uses.NEW_NAME}
Place = tuple[int, int]  # device and inode


def describe(store: RamModelStore) -> dict[str, Any]:
    """The section of ``GET /caches``: the folder, every part in it, and what this server has mapped. Blocks for small reads per part.

    *users* are the ids of the processes that have a part mapped, as far as this process may see them.
    """
    mapped = store.mapped()
    try:
        with locks.books(store.folder), store.folder.opened() as folder:
            used = uses.read(folder)
            files = list(_files(folder, store))
            writing_bytes = StoreRoom(folder, store.cap_bytes).writing_bytes()
    except (OSError, StoreRefused, StoreBusy) as error:
        return {"enabled": True, "folder": store.folder.path, "error": str(error), "counters": store.counters()}
    hits = Counter(use.name for use in used if use.found is Found.STORE)
    last = {use.name: use.at_s for use in used}
    for file in files:
        file.update(hits=hits[file["name"]], last_use=last.get(file["name"]))
    there = {(file["name"], file.pop("inode")) for file in files}
    return {
        "enabled": True,
        "folder": store.folder.path,
        "cap_bytes": store.cap_bytes,
        "bytes": sum(file["bytes"] for file in files),
        "writing_bytes": writing_bytes,
        "files": files,
        "mapped": [
            {"name": name, "model": store.label(name), "bytes": size, "in_store": (name, inode) in there}
            for (name, inode), size in mapped.items()
        ],
        "counters": store.counters(),
    }


def check(store: RamModelStore) -> list[str]:
    """What is not as it should be, in words: parts that are not in order, leftovers, strange files, more than the cap. For tests."""
    wrong: list[str] = []
    with locks.books(store.folder), store.folder.opened() as folder:
        room = StoreRoom(folder, store.cap_bytes)
        wrong += [f"{name} is a leftover" for name in room.sweep()]
        names = set(os.listdir(folder.descriptor))
        strange = {name for name in names - OWN_NAMES if not PART_NAME.fullmatch(name) and not WRITING_NAME.fullmatch(name)}
        wrong += [f"{name} does not belong here" for name in sorted(strange)]
        for name in folder.names(PART_NAME):
            try:
                _read(folder, name)
            except StoredPartError as error:
                wrong.append(f"{name}: {error}")
        total_bytes = sum(room.sizes().values())
    if total_bytes > store.cap_bytes:
        wrong.append(f"{total_bytes} bytes are kept, {store.cap_bytes} are allowed")
    return wrong


def _files(folder: OpenFolder, store: RamModelStore) -> Iterator[dict[str, Any]]:
    """Every part, with its inode; of a damaged one what is known."""
    users = _users()
    for name in folder.names(PART_NAME):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
            about = {"name": name, "model": store.label(name), "bytes": status.st_blocks * 512, "inode": status.st_ino, "seconds": None}
            about["users"] = sorted(users.get((status.st_dev, status.st_ino), ()))
            try:
                head, table = _read(folder, name)
                about.update(model=table.label, seconds=head.seconds)
            except StoredPartError as error:
                about["damaged"] = str(error)
            yield about


def _read(folder: OpenFolder, name: str) -> tuple[Head, PartTable]:
    """Head and table of the part *name*. Raises ``StoredPartError``."""
    try:
        descriptor = folder.open(name, os.O_RDONLY)
    except OSError as error:
        raise StoredPartError(f"it cannot be opened ({error.strerror})") from error
    try:
        head = read_head(os.pread(descriptor, PAGE_BYTES, 0), check_file(descriptor))
        return head, read_table(os.pread(descriptor, head.table_bytes, head.table_start), head)
    finally:
        os.close(descriptor)


def _users(path: str = LOCKS) -> dict[Place, set[int]]:
    """{(device, inode): process ids} of the ``flock`` locks that the system tells of (Linux, proc(5)); those of other namespaces lack."""
    found: dict[Place, set[int]] = {}
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[4].isdigit():
                major, minor, inode = words[5].split(":")
                found.setdefault((os.makedev(int(major, 16), int(minor, 16)), int(inode)), set()).add(int(words[4]))
    return found
