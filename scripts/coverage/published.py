"""What a published model file is, told by its name: its family and the format of its weights."""

import functools
import json
import pathlib
import re

TABLE = pathlib.Path(__file__).with_name("published_files.json")
# Parts of names of quantised files, and the format they stand for; the first that is found holds.
FORMATS = (
    (r"w4a8", "asym_w4a8_int8"),  # however the codes were found
    (r"gptq", "gptq"),
    (r"gguf", "gguf"),
    (r"nvfp4|fp4", "nvfp4"),
    (r"mxfp8", "mxfp8"),
    (r"int8", "int8_tensorwise"),
    (r"e5m2", "float8_e5m2"),
    (r"fp8", "float8_e4m3fn"),
)


def family_of(folder: str, name: str) -> str | None:
    """The family of the file *name* of a model folder, as ``comfy.supported_models`` names it, or the text model, as ``comfy.sd.TEModel``
    does; None where the table has none."""
    own = name.replace("\\", "/").rpartition("/")[2]
    return next((family for folders, pattern, family in _table() if folder in folders and pattern.search(own)), None)


def format_of(name: str) -> str | None:
    """The quantised format that *name* tells of; None for weights in floating point."""
    return next((found for pattern, found in FORMATS if re.search(pattern, name, re.IGNORECASE)), None)


@functools.cache
def _table() -> list[tuple[list[str], re.Pattern[str], str]]:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["files"]
    return [(folders, re.compile(pattern, re.IGNORECASE), family) for folders, pattern, family in rows]
