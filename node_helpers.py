"""Small functions that node authors import as ``node_helpers``."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from comfy.cli_args import args
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

log = logging.getLogger(__name__)

BOUNDARY_GAP = 1e-5  # samplers compare strictly; without a gap two entries would be active at the boundary
_DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def conditioning_set_values(conditioning: list[Any], values: Mapping[str, Any] = {}, append: bool = False) -> list[Any]:  # noqa: B006
    """A copy of *conditioning* whose every entry has *values* set; with *append* they are added to the values present."""
    changed = []
    for tensor, options in ((entry[0], dict(entry[1])) for entry in conditioning):
        for key, value in values.items():
            present = options.get(key) if append else None
            options[key] = value if present is None else present + value
        changed.append([tensor, options])
    return changed


def conditioning_set_values_with_timestep_range(
    conditioning: list[Any],
    values: Mapping[str, Any] = {},  # noqa: B006
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> list[Any]:
    """Set *values* from *start_percent* to *end_percent* of the sampling (0…1) only.

    Entries are split where needed, so that outside the range they work as before; an entry's own range is kept. A start after
    the end changes nothing and is logged.
    """
    if start_percent > end_percent:
        log.warning("start_percent (%s) lies after end_percent (%s); the conditioning is left as it is", start_percent, end_percent)
        return conditioning
    parts: list[Any] = []
    for entry in conditioning:
        first, last = entry[1].get("start_percent", 0.0), entry[1].get("end_percent", 1.0)
        begin, end = max(first, start_percent), min(last, end_percent)
        if begin >= end:
            parts.append(entry)
            continue
        if first < begin:
            parts += conditioning_set_values([entry], {"start_percent": first, "end_percent": begin - BOUNDARY_GAP})
        parts += conditioning_set_values([entry], {**values, "start_percent": begin, "end_percent": end})
        if end < last:
            parts += conditioning_set_values([entry], {"start_percent": end + BOUNDARY_GAP, "end_percent": last})
    return parts


def pillow(fn: Callable[[Any], Any], arg: Any) -> Any:
    """``fn(arg)``, tried again with PIL's tolerance for truncated files when PIL refuses; raises what the second try raises."""
    try:
        return fn(arg)
    except (OSError, ValueError, SyntaxError):  # PIL's UnidentifiedImageError is an OSError; broken PNG chunks are SyntaxErrors
        settings: Any = importlib.import_module("PIL.ImageFile")
        strict = settings.LOAD_TRUNCATED_IMAGES
        try:
            settings.LOAD_TRUNCATED_IMAGES = True
            return fn(arg)
        finally:
            settings.LOAD_TRUNCATED_IMAGES = strict


def hasher() -> Callable[..., Any]:
    """The ``hashlib`` constructor chosen with ``--default-hashing-function``."""
    return getattr(hashlib, args.default_hashing_function)


def string_to_torch_dtype(string: str) -> Any:
    """The dtype that ``fp32``, ``fp16`` or ``bf16`` names; None for anything else."""
    return getattr(torch, _DTYPE_NAMES[string]) if string in _DTYPE_NAMES else None


def image_alpha_fix(destination: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """*destination* as it is, and *source* with as many channels (last dimension): cut, or given one opaque channel."""
    channels = destination.shape[-1]
    if channels > source.shape[-1]:
        source = torch.nn.functional.pad(source, (0, 1))
        source[..., -1] = 1.0
    return destination, source[..., :channels]
