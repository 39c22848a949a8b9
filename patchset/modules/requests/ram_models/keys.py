"""What makes two loads give the same weights: the part of the model, the files, and the options."""

import enum
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch

PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)


class NotComparable(ValueError):
    """An option such as a class or a tensor, of which nobody can say whether it is the same next time."""


def key_of(part: str, paths: Iterable[str], options: Mapping[str, Any]) -> Hashable:
    """Equal keys mean equal weights. Raises ``NotComparable``, and ``OSError`` for a file that is not there."""
    return part, tuple(_identity(path) for path in paths), _plain(options)


def paths_of(key: Any) -> tuple[str, ...]:
    """The real paths of the files that *key* names."""
    return tuple(identity[0] for identity in key[1])


def is_current(key: Any) -> bool:
    """Whether the files are what they were when *key* was made."""
    try:
        return all(_identity(identity[0]) == identity for identity in key[1])
    except OSError:
        return False


def _identity(path: str) -> tuple[str, int, int, int, int]:
    """Which file, and which state of it: times of the last write and of the last change, since programs can set the former."""
    real = os.path.realpath(path)
    state = os.stat(real)
    return real, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _plain(value: Any) -> Hashable:
    """*value* with its types, in tuples."""
    if type(value) in PLAIN:
        return type(value).__name__, value
    if isinstance(value, enum.Enum):
        return type(value).__name__, value.name
    if type(value) in (list, tuple):
        return type(value).__name__, tuple(map(_plain, value))
    if type(value) is dict:
        return "dict", tuple(sorted(((str(name), _plain(each)) for name, each in value.items()), key=lambda row: row[0]))
    raise NotComparable(f"an option is a {type(value).__name__}")
