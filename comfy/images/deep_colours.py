"""Decodes colour pictures with 16 bits per channel by FFmpeg (PyAV) if it is installed, because Pillow cuts them to 8 bits."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from comfy.images.picture_files import RAW_MODES, orientation
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from numpy import ndarray

numpy = lazy_module("numpy")
log = logging.getLogger(__name__)

# FFmpeg's packed formats with 16 bits per channel: channels, byte order
_CHANNELS = {"rgb48": 3, "rgba64": 4, "ya16": 2}
_FORMATS = {name + order: (channels, sign) for name, channels in _CHANNELS.items() for order, sign in (("be", ">"), ("le", "<"))}


def is_deep(picture: Any) -> bool:
    """Whether *picture*, which ``open_picture`` opened, is a colour picture whose file has more bits than Pillow keeps."""
    return picture.mode in ("RGB", "RGBA", "LA") and any("16" in mode for mode in picture.info.get(RAW_MODES, ()))


def read_deep(path: str, picture: Any) -> tuple[ndarray, ndarray | None] | None:
    """Colours (H×W×3) and transparency (H×W, 1 where transparent, or None) of *path*, float32 in 0…1, upright.

    *picture* is the same file, opened by Pillow. None if PyAV is missing, which is logged once, or reads the file differently; callers
    then use 8 bits.
    """
    if importlib.util.find_spec("av") is None:
        _say_once()
        return None
    av = importlib.import_module("av")
    try:
        with av.open(path) as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, OSError, ValueError):  # damaged: Pillow reads what it can, or reports the error
        return None
    channels, sign = _FORMATS.get(frame.format.name, (0, ""))
    if not channels or (frame.width, frame.height) != picture.size:
        return None
    rows = numpy.frombuffer(frame.planes[0], dtype=f"{sign}u2").reshape(-1, frame.planes[0].line_size // 2)
    levels = rows[: frame.height, : frame.width * channels].reshape(frame.height, frame.width, channels)
    levels = turned(levels.astype(numpy.float32) / 65535.0, orientation(picture))
    colours = levels[..., :3] if channels > 2 else numpy.repeat(levels[..., :1], 3, axis=-1)
    return numpy.ascontiguousarray(colours), numpy.ascontiguousarray(1.0 - levels[..., -1]) if channels in (2, 4) else None


def turned(pixels_HWC: ndarray, orientation: int) -> ndarray:
    """*pixels_HWC*, turned upright from the EXIF *orientation* (1 to 8)."""
    if orientation >= 5:  # swap rows and columns
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    return pixels_HWC[:, ::-1] if orientation in (2, 3, 6, 7) else pixels_HWC


@cache
def _say_once() -> None:
    log.warning("Colour pictures with 16 bits a channel are read with 8: install PyAV (pip install av) to keep them all")
