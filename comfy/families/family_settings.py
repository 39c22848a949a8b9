"""Reads from a file's metadata what tensor shapes cannot say about its model.

The header key ``keepwarm.config`` may hold a JSON object with these optional members::

    {"unet": {"num_heads": 4} or {"num_head_channels": 32},
     "clip_l": {"num_attention_heads": 2, "hidden_act": "quick_gelu"}, "clip_g": {…},
     "latent": {"scale_factor": 1.0}, "prediction": "eps" or "v_prediction"}

A file without it is read by its family's standard: 8 heads (SD 1.x) or 64 channels per head (SDXL), and 64 channels per text head.

Some authors write settings of their own, as JSON under ``config``: :func:`published_settings`.
"""

import json
from collections.abc import Mapping
from typing import Any

from comfy.families.model_errors import ModelFileError

METADATA_KEY, PUBLISHED_KEY = "keepwarm.config", "config"
_KNOWN: dict[str, frozenset[str]] = {
    "unet": frozenset({"num_heads", "num_head_channels"}),
    "clip_l": frozenset({"num_attention_heads", "hidden_act"}),
    "clip_g": frozenset({"num_attention_heads", "hidden_act"}),
    "latent": frozenset({"scale_factor"}),
}
PREDICTIONS = ("eps", "v_prediction")


def family_settings(metadata: Mapping[str, str] | None, name: str) -> dict[str, Any]:
    """The settings in *metadata* as nested dicts; empty if there are none.

    Raises ``ModelFileError``, naming the file *name*, when the value is not JSON or has unknown members.
    """
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name}: metadata {METADATA_KEY} is not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise ModelFileError(f"{name}: metadata {METADATA_KEY} must be a JSON object")
    for key, value in settings.items():
        if key == "prediction":
            if value not in PREDICTIONS:
                raise ModelFileError(f"{name}: {METADATA_KEY}: prediction {value!r} is unknown; known: {', '.join(PREDICTIONS)}")
        elif key not in _KNOWN or not isinstance(value, dict) or not value.keys() <= _KNOWN[key]:
            raise ModelFileError(
                f"{name}: {METADATA_KEY}: {key} = {value!r} is not understood; known members: prediction, "
                + "; ".join(f"{known} with {', '.join(sorted(members))}" for known, members in _KNOWN.items())
            )
    return settings


def published_settings(metadata: Mapping[str, str] | None, name: str = "the file") -> dict[str, Any]:
    """The object, which LTX's files have a member in for each of their parts (``transformer``, ``vae``, ``audio_vae``, ``vocoder``).

    Empty if there is none. Raises ``ModelFileError``, naming the file *name*, where it is no JSON object.
    """
    text = (metadata or {}).get(PUBLISHED_KEY)
    if text is None:
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name}: metadata {PUBLISHED_KEY} is not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise ModelFileError(f"{name}: metadata {PUBLISHED_KEY} must be a JSON object")
    return settings


def part_settings(metadata: Mapping[str, str] | None, part: str, name: str = "the file") -> dict[str, Any]:
    """The settings of one *part*; empty if there are none. Raises ``ModelFileError`` as :func:`published_settings` does."""
    settings = published_settings(metadata, name).get(part)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ModelFileError(f"{name}: metadata {PUBLISHED_KEY}: {part} must be a JSON object")
    return settings
