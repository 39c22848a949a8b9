"""Decoding picture files into image and mask tensors.

Images are B×H×W×3 and masks B×H×W, float32 in 0…1 on the CPU; a mask is 1 where the picture is transparent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
pil_image_ops = lazy_module("PIL.ImageOps")
pil_image_sequence = lazy_module("PIL.ImageSequence")
torch = lazy_module("torch")

EMPTY_MASK_SIDE = 64
# Files whose further frames are not the picture: the small second views phones put into JPEG files.
FIRST_FRAME_ONLY = ("MPO",)


def read_image(path: str) -> tuple[Tensor, Tensor]:
    """The frames of the picture at *path* and their masks.

    Rotation recorded by the camera is applied; frames of another size than the first are left out. Without any transparency the
    masks are 64×64 zeros. Raises ``FileNotFoundError``, and ``ValueError`` naming the file when it is no readable picture.
    """
    try:
        with node_helpers.pillow(pil_image.open, path) as opened:
            pictures, masks = _read_frames(opened)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} could not be read as a picture: {error}. Check the file or upload it again.") from error
    mask_batch = _stack_masks(masks, pictures[0].shape[:2])
    return torch.from_numpy(numpy.stack(pictures)), torch.from_numpy(mask_batch)


def _read_frames(opened: Any) -> tuple[list[ndarray], list[ndarray | None]]:
    pictures: list[ndarray] = []
    masks: list[ndarray | None] = []
    for raw in pil_image_sequence.Iterator(opened):
        frame = node_helpers.pillow(pil_image_ops.exif_transpose, raw)
        levels = _colours(frame)
        if pictures and levels.shape != pictures[0].shape:
            continue
        pictures.append(levels)
        masks.append(_transparency(frame))
        if opened.format in FIRST_FRAME_ONLY:
            break
    if not pictures:
        raise ValueError("it holds no frame")
    return pictures, masks


def _colours(frame: Any) -> ndarray:
    if frame.mode.startswith("I") or frame.mode == "F":
        grey = _deep_grey(frame)
        return numpy.repeat(grey[..., None], 3, axis=-1)
    return numpy.array(frame.convert("RGB")).astype(numpy.float32) / 255.0


def _deep_grey(frame: Any) -> ndarray:
    """Values of a grey picture with more than 8 bits, which PIL's own conversion to RGB would clip."""
    values = numpy.array(frame).astype(numpy.float32)
    if frame.mode == "F":
        return values
    return values / (65535.0 if values.max(initial=0.0) <= 65535.0 else 2147483647.0)


def _transparency(frame: Any) -> ndarray | None:
    if "A" not in frame.getbands():
        if "transparency" not in frame.info:
            return None
        frame = frame.convert("RGBA")
    return 1.0 - numpy.array(frame.getchannel("A")).astype(numpy.float32) / 255.0


def _stack_masks(masks: list[ndarray | None], size: tuple[int, ...]) -> ndarray:
    """One mask per frame; a frame without transparency gets zeros of the picture's size if another frame has a mask."""
    if all(mask is None for mask in masks):
        size = (EMPTY_MASK_SIDE, EMPTY_MASK_SIDE)
    return numpy.stack([numpy.zeros(size, numpy.float32) if mask is None else mask for mask in masks])
