"""JSON objects that the server keeps in files: what is accepted reads back, and a damaged file costs at most the last change.

Beside ``x.json`` lies ``x.json.last-good``, the content before the last change. A damaged file is kept under a name of its own, and the
last good copy takes its place.
"""

import json
import logging
import os
import time
from typing import Any

from app.files.atomic_file import write_verified
from app.files.json_body import parse_strict
from app.running.submission import is_shallow
from comfy.units import MIB
from utils.regular_files import FileTooLarge, NotRegularFile, read_regular

log = logging.getLogger(__name__)

MAX_DEPTH = 64
LAST_GOOD_SUFFIX = ".last-good"
_MOST_READ_BYTES = 32 * MIB
_DAMAGED_KEPT = 5


class NotKeepable(ValueError):
    """The object cannot be kept in the file: it is nested too deeply, too large, or would not read back. The file is as it was."""


class JsonFile:
    """One object in the file at *path*, of at most *max_bytes*; *kind* names it in messages ("settings"). Every method blocks on the disk.

    Whoever changes it sees that only one thread does so at a time.
    """

    def __init__(self, path: str, kind: str, max_bytes: int) -> None:
        self.path = path
        self.kind = kind
        self.max_bytes = max_bytes

    def read(self) -> dict[str, Any]:
        """The object; that of the last good copy when the file is damaged, which is said; ``{}`` when there is no file.

        Raises ``OSError`` when the file is there and cannot be read.
        """
        try:
            return self._parsed(self.path)
        except FileNotFoundError:
            return {}
        except (ValueError, FileTooLarge, NotRegularFile) as error:
            return self._recovered(str(error))

    def write(self, content: dict[str, Any]) -> None:
        """Replace the object in one step. Raises :class:`NotKeepable` and ``OSError``; then the file is as it was."""
        encoded = encode_lines(content)
        if len(encoded) > self.max_bytes:
            raise NotKeepable(f"the {self.kind} would take {len(encoded):,} bytes; at most {self.max_bytes:,} are kept")
        if encode_lines(_object(encoded)) != encoded:
            raise NotKeepable(f"the {self.kind} would not read back as they are")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            before = read_regular(self.path, _MOST_READ_BYTES)
            _object(before)
        except (OSError, ValueError):
            pass
        else:
            write_verified(self.path + LAST_GOOD_SUFFIX, before)
        write_verified(self.path, encoded)

    def _parsed(self, path: str) -> dict[str, Any]:
        return _object(read_regular(path, _MOST_READ_BYTES))

    def _recovered(self, problem: str) -> dict[str, Any]:
        aside = f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        os.replace(self.path, aside)
        self._thin_out()
        try:
            content = self._parsed(self.path + LAST_GOOD_SUFFIX)
        except (OSError, ValueError):
            log.warning("The %s %s are damaged (%s); using defaults. The damaged file is kept as %s.", self.kind, self.path, problem, aside)
            return {}
        write_verified(self.path, encode_lines(content))
        log.warning(
            "The %s %s are damaged (%s); using those before the last change. The damaged file is kept as %s.",
            self.kind,
            self.path,
            problem,
            aside,
        )
        return content

    def _thin_out(self) -> None:
        """Keep only the newest damaged files, for whoever damages them again and again."""
        folder, name = os.path.split(self.path)
        damaged = sorted(entry for entry in os.listdir(folder) if entry.startswith(f"{name}.damaged-"))
        for old in damaged[:-_DAMAGED_KEPT]:
            os.unlink(os.path.join(folder, old))


def encode_lines(content: dict[str, Any]) -> bytes:
    """*content* as JSON with a line for each key; as long as its values are, however deep. Raises :class:`NotKeepable`."""
    if not is_shallow(content, MAX_DEPTH):
        raise NotKeepable(f"it is nested deeper than {MAX_DEPTH} levels")
    try:
        lines = [f"    {json.dumps(str(key))}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    except (TypeError, ValueError, RecursionError) as error:
        raise NotKeepable(f"it is not JSON: {error}") from None
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode() if lines else b"{}\n"


def _object(content: bytes) -> dict[str, Any]:
    value = parse_strict(content)
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not an object")
    return value
