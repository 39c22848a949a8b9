"""The picture that belongs to a model file: an image beside it, or a cover inside its metadata."""

import base64
import binascii
import io
import os
from typing import Any

import folder_paths
from app.files.json_body import parse_strict
from app.files.safetensors_header import read_metadata
from app.routes.view_image import PreviewFormat, encode_shrunk, has_alpha
from comfy.images.picture_files import PictureRefused, eight_bit, open_picture, reading_picture
from comfy.units import MIB
from utils.path_safety import is_within_directory

_COVER_KEY = "ssmd_cover_images"
_COVER_HEADER_BYTES = 8 * MIB


class PreviewEscapes(ValueError):
    """The preview is a link that leads out of the model folder."""


def find_previews(model_path: str) -> list[str | io.BytesIO]:
    """Previews of *model_path*, best first: paths of images named like the model, then covers from its metadata.

    Blocks on the disk; an unreadable folder or header counts as empty.
    """
    folder, name = os.path.split(model_path)
    stem = os.path.splitext(name)[0]
    try:
        beside = sorted(entry for entry in os.listdir(folder) if entry.startswith(stem + "."))
    except OSError:
        return []
    images = folder_paths.filter_files_content_types(beside, ["image"])
    named = [image for image in images if os.path.splitext(image)[0] in (stem, f"{stem}.preview")]
    previews: list[str | io.BytesIO] = [os.path.join(folder, image) for image in named]
    if f"{stem}.safetensors" in beside:
        previews += _covers(os.path.join(folder, f"{stem}.safetensors"))
    return previews


def encode_model_preview(root: str, model_path: str) -> bytes | None:
    """The first preview of *model_path* as WEBP, or None when there is none that can be decoded.

    *root* is the model folder that an image beside the model must lie in, links followed: else ``PreviewEscapes`` is raised.
    Blocks and uses CPU.
    """
    previews = find_previews(model_path)
    if not previews:
        return None
    source = previews[0]
    if isinstance(source, str) and not is_within_directory(root, source):
        raise PreviewEscapes(source)
    try:
        with open_picture(source) as image, reading_picture():
            picture = eight_bit(image).convert("RGBA" if has_alpha(image) else "RGB")
    except (PictureRefused, FileNotFoundError):
        return None
    return encode_shrunk(picture, PreviewFormat())


def _covers(path: str) -> list[io.BytesIO]:
    try:
        metadata: dict[str, Any] = read_metadata(path, _COVER_HEADER_BYTES) or {}
        encoded = parse_strict(metadata.get(_COVER_KEY) or "[]")
        return [io.BytesIO(base64.b64decode(image)) for image in encoded if isinstance(image, str)] if isinstance(encoded, list) else []
    except (OSError, ValueError, TypeError, binascii.Error):
        return []
