"""What authors write in the metadata of their files about the models in them: a JSON object under ``config``."""

import json
from collections.abc import Mapping
from typing import Any

from comfy.families.model_errors import ModelFileError

METADATA_KEY = "config"


def published_settings(metadata: Mapping[str, str] | None, name: str = "the file") -> dict[str, Any]:
    """The object, which LTX's files have a member in for each of their parts (``transformer``, ``vae``, ``audio_vae``, ``vocoder``).

    Empty if there is none. Raises ``ModelFileError``, naming the file *name*, where it is no JSON object.
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
    return settings


def part_settings(metadata: Mapping[str, str] | None, part: str, name: str = "the file") -> dict[str, Any]:
    """The settings of one *part*; empty if there are none. Raises ``ModelFileError`` as :func:`published_settings` does."""
    settings = published_settings(metadata, name).get(part)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ModelFileError(f"{name}: metadata {METADATA_KEY}: {part} must be a JSON object")
    return settings
