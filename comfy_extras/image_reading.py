"""Decodes picture files into image and mask tensors.

Images are B×H×W×3 and masks B×H×W, float32 in 0…1 on the CPU; a mask is 1 where the picture is transparent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.images.deep_colours import is_deep, read_deep
from comfy.images.picture_files import (
    SHARE_OF_FREE_RAM,
    PictureRefused,
    check_fits,
    open_picture,
    reading_picture,
    transparent_level,
    upright,
)
from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.host_memory import HostMemory

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image_sequence = lazy_module("PIL.ImageSequence")
torch = lazy_module("torch")

EMPTY_MASK_SIDE = 64
# Formats whose further frames are not part of the picture: small second views that phones put into JPEG files.
FIRST_FRAME_ONLY = ("MPO",)
# Per pixel: three float32 channels and a mask, a second copy of both while frames are stacked, and the decoded file.
BYTES_PER_PIXEL = 40


def read_image(path: str) -> tuple[Tensor, Tensor]:
    """The frames of the picture at *path* and their masks.

    Pictures are turned as the camera recorded; frames of another size than the first are left out. Without any transparency the
    masks are 64×64 zeros. Raises ``FileNotFoundError``, and ``ValueError``, naming the file, when it is not a readable picture or its
    frames do not fit into free RAM.
    """
    try:
        with open_picture(path) as opened, reading_picture():
            deep = read_deep(path, opened) if is_deep(opened) else None
            pictures, masks = _read_frames(opened) if deep is None else ([deep[0]], [deep[1]])
    except PictureRefused as error:
        raise ValueError(f"{path} could not be read as a picture: {error}. Check the file or upload it again.") from error
    mask_batch = _stack_masks(masks, pictures[0].shape[:2])
    return torch.from_numpy(numpy.stack(pictures)), torch.from_numpy(mask_batch)


def _read_frames(opened: Any) -> tuple[list[ndarray], list[ndarray | None]]:
    pictures: list[ndarray] = []
    masks: list[ndarray | None] = []
    check_fits(opened, opened.width * opened.height * BYTES_PER_PIXEL * _frames_read(opened))
    budget = int(HostMemory().available_bytes() * SHARE_OF_FREE_RAM)
    level = transparent_level(opened)
    for raw in pil_image_sequence.Iterator(opened):
        budget -= raw.width * raw.height * BYTES_PER_PIXEL
        if budget < 0:
            raise PictureRefused(f"its frames, {raw.width}x{raw.height} each, take more memory than is free; make them smaller or fewer")
        frame = upright(raw)
        levels = _colours(frame)
        if pictures and levels.shape != pictures[0].shape:
            continue
        pictures.append(levels)
        masks.append(_transparency(frame, level))
        if opened.format in FIRST_FRAME_ONLY:
            break
    if not pictures:
        raise PictureRefused("it holds no frame")
    return pictures, masks


def _frames_read(opened: Any) -> int:
    """How many frames there are to read; finding out decodes none of them."""
    return 1 if opened.format in FIRST_FRAME_ONLY else getattr(opened, "n_frames", 1)


def _colours(frame: Any) -> ndarray:
    if frame.mode.startswith("I") or frame.mode == "F":
        grey = _deep_grey(frame)
        return numpy.repeat(grey[..., None], 3, axis=-1)
    return numpy.array(frame.convert("RGB")).astype(numpy.float32) / 255.0


def _deep_grey(frame: Any) -> ndarray:
    """The values of a grey picture with more than 8 bits, which PIL's own conversion to RGB would clip."""
    values = numpy.array(frame).astype(numpy.float32)
    if frame.mode == "F":
        return values
    return values / (65535.0 if values.max(initial=0.0) <= 65535.0 else 2147483647.0)


def _transparency(frame: Any, level: Any) -> ndarray | None:
    """1 where *frame* is transparent; without an alpha channel that is where its colour is *level*."""
    if "A" in frame.getbands():
        return 1.0 - numpy.array(frame.getchannel("A")).astype(numpy.float32) / 255.0
    if level is not None:
        same = numpy.array(frame.convert("L") if frame.mode == "1" else frame) == numpy.array(level)
        return (same.all(axis=-1) if same.ndim == 3 else same).astype(numpy.float32)
    if "transparency" not in frame.info:
        return None
    return 1.0 - numpy.array(frame.convert("RGBA").getchannel("A")).astype(numpy.float32) / 255.0


def _stack_masks(masks: list[ndarray | None], size: tuple[int, ...]) -> ndarray:
    """One mask per frame. If any frame has a mask, frames without transparency get zeros of the picture's size."""
    if all(mask is None for mask in masks):
        size = (EMPTY_MASK_SIDE, EMPTY_MASK_SIDE)
    return numpy.stack([numpy.zeros(size, numpy.float32) if mask is None else mask for mask in masks])
