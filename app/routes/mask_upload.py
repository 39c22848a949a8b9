"""Laying the alpha channel that the mask editor sends over the image it was drawn on."""

import io
from typing import IO, Any

from app.files.json_body import parse_strict
from app.files.path_guard import UnsafePath
from app.files.stored_file import FileReference
from comfy.images.picture_files import PictureRefused, eight_bit, open_picture, reading_picture, upright
from comfy.lazy_import import lazy_module

PngImagePlugin = lazy_module("PIL.PngImagePlugin")


class MaskRefused(ValueError):
    """The mask cannot be applied; the message says why, for the client."""


def parse_original(text: str) -> FileReference:
    """Read the form field ``original_ref``: JSON with ``filename`` and, if given, ``subfolder`` and ``type``.

    Raises ``MaskRefused``.
    """
    try:
        value: Any = parse_strict(text)
    except ValueError as error:
        raise MaskRefused(f"original_ref is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise MaskRefused("original_ref must be an object with filename, subfolder and type")
    filename = value.get("filename")
    subfolder, kind = value.get("subfolder") or "", value.get("type") or "output"
    if not (isinstance(filename, str) and filename and isinstance(subfolder, str) and isinstance(kind, str)):
        raise MaskRefused("original_ref needs a filename, and its values must be text")
    return FileReference(filename, subfolder, kind)


def apply_mask(original: FileReference, mask: IO[bytes]) -> IO[bytes]:
    """The original image with the alpha of *mask*, as PNG with the original's text chunks.

    Blocks and uses CPU. Raises ``MaskRefused`` when the original is missing, either is not an image, or the sizes differ.
    """
    try:
        path = original.locate()
    except UnsafePath as error:
        raise MaskRefused(f"original_ref: {error}") from None
    if path is None:
        raise MaskRefused(f"the original image {original.name!r} does not exist")
    try:
        alpha = _alpha_of(mask)
        with open_picture(path) as image, reading_picture():
            texts = _texts_of(image)
            picture = eight_bit(upright(image)).convert("RGBA")
    except (PictureRefused, FileNotFoundError) as error:
        raise MaskRefused(str(error)) from None
    if alpha.size != picture.size:
        raise MaskRefused(f"the mask has {alpha.width}x{alpha.height} pixels, the image {picture.width}x{picture.height}")
    picture.putalpha(alpha)
    result = io.BytesIO()
    picture.save(result, format="png", compress_level=4, pnginfo=texts)
    return result


def _alpha_of(mask: IO[bytes]) -> Any:
    mask.seek(0)
    with open_picture(mask) as image, reading_picture():
        return image.convert("RGBA").getchannel("A")


def _texts_of(image: Any) -> Any:
    texts = PngImagePlugin.PngInfo()
    for key, value in getattr(image, "text", {}).items():
        texts.add_text(key, value)
    return texts
