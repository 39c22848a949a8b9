"""Resizes images (B×H×W×C) and masks (B×H×W) by the rules of the "Resize Image/Mask" node, and joins them to batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import comfy.utils
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

PIXELS_PER_MEGAPIXEL = 1024 * 1024


def resize(values: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """Images or masks at *width* × *height* (see ``comfy.utils.common_upscale``)."""
    if values.ndim == 4:
        return comfy.utils.common_upscale(values.movedim(-1, 1), width, height, method, crop).movedim(1, -1)
    resized = comfy.utils.common_upscale(values.unsqueeze(1), width, height, method, crop)
    return resized.reshape(values.shape[0], height, width)


def size_of(values: Tensor) -> tuple[int, int]:
    """(width, height) of images or masks."""
    return values.shape[2], values.shape[1]


def scale_dimensions(values: Tensor, width: int, height: int, method: str, crop: str = "disabled") -> Tensor:
    """Resize to *width* × *height*. A side of 0 is computed from the other one; if both are 0, nothing changes."""
    if width == 0 and height == 0:
        return values
    old_width, old_height = size_of(values)
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    return resize(values, width, height, method, crop)


def scale_by(values: Tensor, multiplier: float, method: str) -> Tensor:
    """Multiply both sides by *multiplier*, rounded."""
    width, height = (round(side * multiplier) for side in size_of(values))
    return resize(values, width, height, method)


def scale_side(values: Tensor, length: int, method: str, shorter: bool = False) -> Tensor:
    """Resize the longer (or *shorter*) side to *length* and keep the aspect ratio."""
    sides = size_of(values)
    reference = min(sides) if shorter else max(sides)
    width, height = (length if side == reference else round((side / reference) * length) for side in sides)
    return resize(values, width, height, method)


def scale_total_pixels(values: Tensor, megapixels: float, method: str) -> Tensor:
    """Resize to about *megapixels* × 1024² pixels and keep the aspect ratio."""
    width, height = size_of(values)
    return scale_by(values, math.sqrt(int(megapixels * PIXELS_PER_MEGAPIXEL) / (width * height)), method)


def scale_to_multiple(values: Tensor, multiple: int, method: str) -> Tensor:
    """Resize to the next smaller sides divisible by *multiple*: scale until both are covered, then cut evenly.

    Pictures smaller than *multiple* come back unchanged.
    """
    sides = size_of(values)
    wanted = tuple(side // multiple * multiple for side in sides)
    if multiple <= 1 or 0 in wanted or wanted == sides:
        return values
    shares = [target / side for target, side in zip(wanted, sides)]
    share = max(shares)
    covered = [target if own == share else max(target, math.ceil(side * share)) for target, side, own in zip(wanted, sides, shares)]
    left, top = ((side - target) // 2 for side, target in zip(covered, wanted))
    return resize(values, covered[0], covered[1], method)[:, top : top + wanted[1], left : left + wanted[0]]


def batch_images(images: list[Tensor]) -> Tensor:
    """Join images to one batch. Each is resized to the first; a missing alpha channel becomes opaque."""
    channels = max(image.shape[-1] for image in images)
    full = [torch.nn.functional.pad(image, (0, channels - image.shape[-1]), value=1.0) for image in images]
    return torch.cat([_like_first(image, full[0]) for image in full], dim=0)


def batch_masks(masks: list[Tensor]) -> Tensor:
    """Join masks to one batch. Each is resized to the first."""
    return torch.cat([_like_first(mask, masks[0]) for mask in masks], dim=0)


def _like_first(values: Tensor, first: Tensor) -> Tensor:
    return values if size_of(values) == size_of(first) else resize(values, *size_of(first), "bilinear", "center")
