"""Reading the metadata that a safetensors file carries in front of its tensors."""

import struct
from typing import Any

from app.files.json_body import parse_strict
from utils.regular_files import open_regular

_LENGTH = struct.Struct("<Q")


def read_metadata(path: str, max_header_bytes: int) -> dict[str, Any] | None:
    """The ``__metadata__`` object of the safetensors file at *path*; None if it has none or its header is larger than allowed.

    Blocks. Raises ``OSError`` when the file cannot be read.
    """
    with open_regular(path) as file:
        prefix = file.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            return None
        header_bytes = _LENGTH.unpack(prefix)[0]
        if header_bytes > max_header_bytes:
            return None
        content = file.read(header_bytes)
    try:
        header = parse_strict(content)
    except ValueError:
        return None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else None
