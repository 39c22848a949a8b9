"""Names for saved results: tokens in the prefix, and the next free counter."""

import os
import re
import time

from utils.folder_walk import MAX_DEPTH
from utils.path_safety import is_within_directory
from utils.whole_text import whole_text

TOKENS = ("%year%", "%month%", "%day%", "%hour%", "%minute%", "%second%")


def fill_tokens(prefix: str, width: int, height: int, now: time.struct_time | None = None) -> str:
    """*prefix* with ``%width%``, ``%height%`` and the date tokens (local time) replaced."""
    if "%" not in prefix:
        return prefix
    moment = now or time.localtime()
    values = {"%width%": str(width), "%height%": str(height), "%year%": str(moment.tm_year)}
    values |= {token: f"{value:02d}" for token, value in zip(TOKENS[1:], moment[1:6])}
    for token, value in values.items():
        prefix = prefix.replace(token, value)
    return prefix


def next_counter(folder: str, name: str) -> int:
    """One more than the highest ``<name>_<digits>`` that a name in *folder* begins with; 1 when there is none.

    What follows the digits does not matter: packs write ``name_00001.png``, the core ``name_00001_.png``. Letter case is ignored.
    Blocks on disk.
    """
    pattern = re.compile(re.escape(name) + r"_(\d+)", re.IGNORECASE)
    found = (pattern.match(entry) for entry in os.listdir(folder))
    return max((int(match.group(1)) for match in found if match), default=0) + 1


def save_path(prefix: str, output_dir: str, width: int = 0, height: int = 0) -> tuple[str, str, int, str, str]:
    """Where the next result with this *prefix* goes; its folder is made.

    Returns (folder, file name without counter and extension, counter, subfolder, prefix with tokens filled). Raises ``ValueError`` when
    the prefix leads out of *output_dir* or too deep into it.
    """
    filled = fill_tokens(whole_text(prefix), width, height)
    subfolder = os.path.dirname(os.path.normpath(filled))
    name = os.path.basename(os.path.normpath(filled))
    folder = os.path.join(output_dir, subfolder)
    if "\0" in filled or not is_within_directory(output_dir, os.path.join(folder, name)):
        raise ValueError(
            f"Saving outside the output folder is not allowed: prefix {prefix!r} leads to {folder!r}. "
            "Use a prefix without '..' that does not start with '/'."
        )
    if len(subfolder.split(os.sep)) > MAX_DEPTH:
        raise ValueError(f"The prefix {prefix[:80]!r}… names more than {MAX_DEPTH} folders; shorten it")
    os.makedirs(folder, exist_ok=True)
    return folder, name, next_counter(folder, name), subfolder, filled
