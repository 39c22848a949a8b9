"""Encodes image tensors into files that contain the prompt and workflow they were made with.

A file appears under its name only when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy.cli_args import args
from comfy.lazy_import import lazy_module
from utils.whole_files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
pil_png = lazy_module("PIL.PngImagePlugin")

EXIF_MODEL_TAG = 0x0110
EXIF_MAKE_TAG = 0x010F


def to_picture(image_HWC: Tensor) -> Any:
    """The 8-bit PIL picture of one image: values times 255, clipped and truncated. One channel becomes greyscale."""
    levels = numpy.clip(255.0 * image_HWC.cpu().float().numpy(), 0, 255).astype(numpy.uint8)
    return pil_image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def metadata_texts(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> dict[str, str]:
    """The metadata of a saved file: {key: JSON text}, ``prompt`` first; empty with ``--disable-metadata``."""
    if args.disable_metadata:
        return {}
    entries = {} if prompt is None else {"prompt": prompt}
    return {key: json.dumps(value) for key, value in [*entries.items(), *(extra_pnginfo or {}).items()]}


def png_key(key: str) -> str:
    """*key* in the alphabet of PNG's keywords (Latin-1); other characters become question marks."""
    return key.encode("latin-1", "replace").decode("latin-1")


def png_metadata(texts: Mapping[str, str]) -> Any:
    """The PNG text chunks for *texts*, or None when there are none."""
    if not texts:
        return None
    chunks = pil_png.PngInfo()
    for key, value in texts.items():
        chunks.add_text(png_key(key), value)
    return chunks


def animated_png_metadata(texts: Mapping[str, str]) -> Any:
    """The metadata chunks of an animated PNG: private ``comf`` chunks ``key NUL json`` after the picture data; None without *texts*."""
    if not texts:
        return None
    chunks = pil_png.PngInfo()
    for key, value in texts.items():
        chunks.add(b"comf", png_key(key).encode("latin-1") + b"\0" + value.encode("latin-1", "strict"), after_idat=True)
    return chunks


def exif_metadata(texts: Mapping[str, str], picture: Any) -> Any:
    """EXIF data for *texts*: the prompt under the model tag, the others from the make tag downwards, each ``key:json``."""
    exif = picture.getexif()
    tag = EXIF_MAKE_TAG
    for key, value in texts.items():
        if key == "prompt":
            exif[EXIF_MODEL_TAG] = f"{key}:{value}"
        else:
            exif[tag] = f"{key}:{value}"
            tag -= 1
    return exif


def save_png(path: str, picture: Any, texts: Mapping[str, str], compress_level: int = 4) -> None:
    """Write *picture* as PNG with *texts* as its text chunks. Blocks on disk."""
    write_whole(path, lambda opened: picture.save(opened, format="PNG", pnginfo=png_metadata(texts), compress_level=compress_level))
