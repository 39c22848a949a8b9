"""Re-encoding stored images for the page: previews, and single channels for the mask editor."""

import io
from dataclasses import dataclass
from typing import Any

from comfy.images.picture_files import eight_bit, open_picture, reading_picture, upright
from comfy.lazy_import import lazy_module

Image = lazy_module("PIL.Image")

_MAX_SIDE = {"webp": 16383, "jpeg": 65500}
_DEFAULT_QUALITY = 90


@dataclass(frozen=True, slots=True)
class PreviewFormat:
    """What ``preview=fmt[;quality]`` asks for: ``webp`` or ``jpeg``, and a quality from 1 to 100."""

    name: str = "webp"
    quality: int = _DEFAULT_QUALITY

    @classmethod
    def parse(cls, text: str) -> "PreviewFormat":
        """Read the query parameter; an unknown format is webp and an odd quality is 90."""
        name, _, quality = text.partition(";")
        known = name if name in _MAX_SIDE else "webp"
        if not (quality.isascii() and quality.isdigit() and len(quality) <= 3):
            return cls(known)
        return cls(known, min(100, max(1, int(quality))))


def encode_preview(path: str, wanted: PreviewFormat, channel: str) -> bytes:
    """The image at *path* as a preview; alpha survives only in webp and when *channel* names it.

    Blocks and uses CPU. Raises ``PictureRefused`` for what is not an image or is too large, ``OSError`` when the file is gone.
    """
    with open_picture(path) as image, reading_picture():
        keep_alpha = wanted.name == "webp" and "a" in channel and has_alpha(image)
        picture = eight_bit(upright(image)).convert("RGBA" if keep_alpha else "RGB")
    return encode_shrunk(picture, wanted)


def encode_shrunk(picture: Any, wanted: PreviewFormat) -> bytes:
    """Encode the RGB or RGBA *picture*, made smaller in place where the format has no room for its sides."""
    side = _MAX_SIDE[wanted.name]
    if max(picture.size) > side:
        picture.thumbnail((side, side))
    return _encoded(picture, wanted.name, quality=wanted.quality)


def encode_channel(path: str, channel: str) -> bytes:
    """The image at *path* as PNG: for ``rgb`` without alpha, for ``a`` black with only its alpha. Blocks; raises as above."""
    with open_picture(path) as image, reading_picture():
        if channel == "rgb":
            picture = eight_bit(upright(image)).convert("RGB")
        else:
            alpha = upright(image).convert("RGBA").getchannel("A")
            picture = Image.new("RGBA", alpha.size)
            picture.putalpha(alpha)
    return _encoded(picture, "png", compress_level=1)


def has_alpha(image: Any) -> bool:
    """Whether the open *image* carries transparency, as a channel or as a transparent colour."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _encoded(picture: Any, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=format_name, **options)
    return buffer.getvalue()
