"""What makes two loads give the same weights: component, files and the options that change weights.

:class:`WeightsKey` names weights on this machine (file identities); :func:`content_fingerprint` names a file's contents anywhere.
Portable: the standard library and ``comfy/units.py`` only; torch's dtypes and devices are recognised without importing it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy.units import MIB

SAMPLE_BYTES = 4096
CHUNK_BYTES = 8 * MIB
MAX_HEADER_BYTES = 100_000_000
MAX_DEPTH = 12
PLAIN_TORCH_TYPES = ("dtype", "device", "layout", "memory_format", "Size")


class NotCacheable(ValueError):
    """Weights loaded with these options cannot be named, so they are loaded anew each time; the text says why."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file, and which state of it: real path, size in bytes, times of the last write and the last change in ns, inode, device.

    Programs can set the time of a write, but not that of a change. It also moves when permissions or the number of links do: such a
    file is read again, as nothing else tells that it holds what it held.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileIdentity:
        """The identity of *path* now, links followed. Raises ``OSError`` when there is no such file."""
        real = os.path.realpath(path)
        status = os.stat(real)
        return cls(real, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


@dataclass(frozen=True, slots=True)
class WeightsKey:
    """Equal for two loads iff the second would give the same weights as the first.

    *options* are (name, text) pairs sorted by name, each text unambiguous about type and value; :func:`weights_key` makes them.
    """

    component: str
    files: tuple[FileIdentity, ...]
    options: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """Component and file names, for people."""
        return f"{self.component} of {' + '.join(os.path.basename(file.path) for file in self.files)}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Real paths of the files."""
        return tuple(file.path for file in self.files)

    def is_current(self) -> bool:
        """Whether every file is still what it was when this key was made. Blocks for one ``stat`` per file."""
        try:
            return all(FileIdentity.of(file.path) == file for file in self.files)
        except OSError:
            return False


def weights_key(component: str, paths: Iterable[str | os.PathLike[str]], options: Mapping[str, Any] | None = None) -> WeightsKey:
    """The key of *component* (``"model"``, ``"clip"``, ``"vae"`` …) loaded from *paths*, in order, with *options*.

    Options that are None count as not given. Raises :class:`NotCacheable` when an option holds a callable, a class, a tensor or
    anything else without a lasting value, and ``OSError`` for a missing file. Blocks for one ``stat`` per file.
    """
    given = sorted((name, _canonical(value, name)) for name, value in (options or {}).items() if value is not None)
    return WeightsKey(component, tuple(FileIdentity.of(path) for path in paths), tuple(given))


def difference(old: WeightsKey, new: WeightsKey) -> str | None:
    """Why *new* is another key than *old*, in words; None when they are equal. For receipts."""
    if old == new:
        return None
    if old.component != new.component:
        return f"component differs: {old.component}, now {new.component}"
    if old.paths != new.paths:
        return "other files"
    changed = [_file_change(was, now) for was, now in zip(old.files, new.files) if was != now]
    if changed:
        return "file changed: " + "; ".join(changed)
    before, after = dict(old.options), dict(new.options)
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    missing = "not given"
    return "options differ: " + ", ".join(f"{name} was {before.get(name, missing)}, now {after.get(name, missing)}" for name in names)


def _file_change(was: FileIdentity, now: FileIdentity) -> str:
    facts = (("size", was.size, now.size), ("time", was.mtime_ns, now.mtime_ns), ("inode", was.inode, now.inode))
    what = [name for name, old, new in facts if old != new] or ["time of change" if was.device == now.device else "device"]
    return f"{os.path.basename(now.path)} ({', '.join(what)})"


def _canonical(value: Any, where: str, depth: int = 0) -> str:
    """A text that only equal values of equal type share."""
    if depth > MAX_DEPTH:
        raise NotCacheable(f"option {where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, enum.Enum):
        return f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"
    if value is None or type(value) in (bool, int, str, bytes):
        return repr(value)
    if type(value) is float:
        if math.isnan(value):
            raise NotCacheable(f"option {where} is not a number")
        return repr(value)
    if type(value).__module__ == "torch" and type(value).__name__ in PLAIN_TORCH_TYPES:
        return str(value)
    if isinstance(value, os.PathLike):
        return f"path:{os.fspath(value)!r}"
    if isinstance(value, Mapping):
        pairs = sorted((_canonical(key, where, depth + 1), _canonical(entry, f"{where}.{key}", depth + 1)) for key, entry in value.items())
        return "{" + ", ".join(f"{key}: {entry}" for key, entry in pairs) + "}"
    if isinstance(value, set | frozenset):
        return "set(" + ", ".join(sorted(_canonical(entry, where, depth + 1) for entry in value)) + ")"
    if isinstance(value, list | tuple):
        body = ", ".join(_canonical(entry, f"{where}[{index}]", depth + 1) for index, entry in enumerate(value))
        return f"{'list' if isinstance(value, list) else 'tuple'}({body})"
    kind = "a class" if isinstance(value, type) else "a callable" if callable(value) else f"a {type(value).__name__}"
    raise NotCacheable(f"option {where} holds {kind}, whose effect on the weights cannot be compared")


class FingerprintMemo:
    """Content fingerprints already computed, in *folder*, one small file per file identity. Any thread or process."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def recall(self, identity: FileIdentity, strict: bool) -> str | None:
        """The fingerprint noted for exactly this state of the file, or None."""
        try:
            noted = json.loads(self._place(identity, strict).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return noted.get("fingerprint") if isinstance(noted, dict) and noted.get("identity") == _fields(identity) else None

    def note(self, identity: FileIdentity, strict: bool, fingerprint: str) -> None:
        """Remember *fingerprint*; replaces the file in one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".part", delete=False, encoding="utf-8") as file:
            json.dump({"identity": _fields(identity), "fingerprint": fingerprint}, file)
        os.replace(file.name, self._place(identity, strict))

    def _place(self, identity: FileIdentity, strict: bool) -> Path:
        name = hashlib.blake2b(identity.path.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self._folder / f"{name}{'-strict' if strict else ''}.json"


def content_fingerprint(path: str | os.PathLike[str], memo: FingerprintMemo | None = None, strict: bool = False) -> str:
    """A name for what *path* contains, the same on every machine: hexadecimal, 64 digits.

    Of a safetensors file: its header, its size and the first and last 4 KiB of every tensor; of any other file, or with *strict*,
    every byte. Raises ``OSError``, or ``RuntimeError`` when the file changes while it is read. Blocks for the reads.
    """
    identity = FileIdentity.of(path)
    known = memo.recall(identity, strict) if memo is not None else None
    if known is not None:
        return known
    digest = hashlib.blake2b(digest_size=32, person=b"kw-strict" if strict else b"kw-sample")
    digest.update(identity.size.to_bytes(8, "little"))
    with open(identity.path, "rb", buffering=0) as file:
        ranges = None if strict else _sampled_ranges(file.fileno(), identity.size)
        for start, stop in ranges if ranges is not None else [(0, identity.size)]:
            _hash_range(digest, file.fileno(), start, stop, identity.path)
    if FileIdentity.of(path) != identity:
        raise RuntimeError(f"{identity.path} changed while its fingerprint was taken; try again when it is written completely")
    if memo is not None:
        memo.note(identity, strict, digest.hexdigest())
    return digest.hexdigest()


def _sampled_ranges(descriptor: int, file_bytes: int) -> list[tuple[int, int]] | None:
    """Byte ranges to hash: the header and both ends of every tensor; None when this is not a safetensors file."""
    length = int.from_bytes(_pread(descriptor, 8, 0), "little")
    if not 0 < length <= min(MAX_HEADER_BYTES, file_bytes - 8):
        return None
    try:
        header = json.loads(_pread(descriptor, length, 8))
        places = sorted(tuple(entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    data = 8 + length
    ranges = [(0, data)]
    for start, stop in places:
        if not (isinstance(start, int) and isinstance(stop, int) and 0 <= start <= stop <= file_bytes - data):
            return None
        ranges.append((data + start, data + min(stop, start + SAMPLE_BYTES)))
        ranges.append((data + max(start, stop - SAMPLE_BYTES), data + stop))
    return ranges


def _hash_range(digest: Any, descriptor: int, start: int, stop: int, path: str) -> None:
    while start < stop:
        chunk = _pread(descriptor, min(CHUNK_BYTES, stop - start), start)
        if not chunk:
            raise RuntimeError(f"{path} ends at byte {start}, {stop} were expected; it is being written or was cut short")
        digest.update(chunk)
        start += len(chunk)


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    """Up to *count* bytes at *offset*; Windows has no ``pread``."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def _fields(identity: FileIdentity) -> list[str | int]:
    return [identity.path, identity.size, identity.mtime_ns, identity.ctime_ns, identity.inode, identity.device]
