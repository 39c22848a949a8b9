"""Reduces a picture to a palette, with ordered (Bayer) dithering if asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from numpy import ndarray

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")


def bayer_matrix(order: int) -> ndarray:
    """The *order*×*order* threshold matrix with values from -0.5 to 0.5; *order* is a power of two."""
    matrix = numpy.zeros((1, 1), "float32")
    for _ in range(int(math.log2(order))):
        size = matrix.shape[0] * 2
        scaled = size * size * matrix
        matrix = numpy.block([[scaled - 1.5, scaled + 0.5], [scaled + 1.5, scaled - 0.5]]) / (size * size)
    return matrix


def quantize(picture: Any, colors: int, dither: str) -> Any:
    """The RGB *picture* in at most *colors* of its own colours. *dither*: ``none``, ``floyd-steinberg`` or ``bayer-<order>``."""
    palette = picture.quantize(colors=colors)  # PIL only dithers to a given palette
    if dither == "floyd-steinberg":
        return picture.quantize(palette=palette, dither=pil_image.Dither.FLOYDSTEINBERG).convert("RGB")
    if dither.startswith("bayer-"):
        picture = _add_thresholds(picture, int(dither.removeprefix("bayer-")), len(palette.getpalette()) // 3)
    return picture.quantize(palette=palette, dither=pil_image.Dither.NONE).convert("RGB")


def _add_thresholds(picture: Any, order: int, colors: int) -> Any:
    thresholds = (2 * 256 / colors) * bayer_matrix(order) + 0.5
    values = numpy.array(picture).astype(numpy.float32)
    rows, columns = (numpy.arange(side) % order for side in values.shape[:2])
    values += thresholds[rows][:, columns, None]
    return pil_image.fromarray(values.clip(0, 255).astype(numpy.uint8))
