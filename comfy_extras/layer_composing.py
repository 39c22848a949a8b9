"""Draws arranged layers onto one canvas, in linear light."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras import layer_blending
from comfy_extras.colours import rgb_levels
from comfy_extras.layer_documents import Arrangement, Layer, Placement, in_8_bits
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

OPAQUE = 0.999  # from here on a picture counts as opaque


def compose(layers: list[Layer], arrangement: Arrangement) -> tuple[Tensor, Tensor]:
    """The picture, 1×H×W×4, or ×3 where it is opaque everywhere, and its mask (1: transparent). Raises ``ValueError`` for huge canvases."""
    width, height = arrangement.canvas
    if max(width, height) > MAX_RESOLUTION:
        raise ValueError(f"a canvas of {width}x{height} is too large; at most {MAX_RESOLUTION} pixels are possible on each side")
    canvas = numpy.zeros((height, width, 4), dtype=numpy.float32)
    if arrangement.background is not None:
        colour, opacity = arrangement.background
        plain = layer_blending.to_linear(numpy.array(rgb_levels(colour), dtype=numpy.float32) / 255.0)
        filled = numpy.broadcast_to(numpy.append(plain, numpy.float32(1.0)), canvas.shape)
        canvas = layer_blending.blend_layers(canvas, filled, "normal", opacity)
    for number in arrangement.order:
        if arrangement.placements[number].visible:
            _draw(canvas, layers[number], arrangement.placements[number])
    colours = layer_blending.to_encoded(numpy.clip(canvas[..., :3], 0.0, 1.0))
    alpha = torch.from_numpy(numpy.clip(canvas[..., 3], 0.0, 1.0)).unsqueeze(0)
    picture = torch.from_numpy(colours).unsqueeze(0)
    if (alpha >= OPAQUE).all():
        return picture, torch.zeros_like(alpha)
    return torch.cat([picture, alpha.unsqueeze(-1)], dim=-1), 1.0 - alpha


def _draw(canvas: Any, layer: Layer, placement: Placement) -> None:
    """Blend *layer* into *canvas*, in place, where both meet."""
    left, top, width, height = placement.bounds()
    start_x, start_y = max(left, 0), max(top, 0)
    end_x, end_y = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if start_x < end_x and start_y < end_y:
        bitmap = _centred(_bitmap(layer, placement), width, height)[start_y - top : end_y - top, start_x - left : end_x - left]
        place = (slice(start_y, end_y), slice(start_x, end_x))
        canvas[place] = layer_blending.blend_layers(canvas[place], bitmap, placement.blend, placement.opacity)


def _bitmap(layer: Layer, placement: Placement) -> Any:
    """The layer's RGBA picture, flipped, scaled and turned."""
    levels = in_8_bits(layer.picture[0, ..., :3])
    alpha = numpy.full(levels.shape[:2], 255, dtype=numpy.uint8) if layer.alpha is None else in_8_bits(layer.alpha[0])
    picture = pil_image.fromarray(numpy.dstack([levels, alpha]))
    for wanted, flip in ((placement.flip_h, pil_image.Transpose.FLIP_LEFT_RIGHT), (placement.flip_v, pil_image.Transpose.FLIP_TOP_BOTTOM)):
        picture = picture.transpose(flip) if wanted else picture
    size = (max(1, round(placement.width)), max(1, round(placement.height)))
    if picture.size != size:
        picture = picture.resize(size, pil_image.Resampling.LANCZOS)
    if placement.rotation:
        picture = picture.rotate(
            -math.degrees(placement.rotation), resample=pil_image.Resampling.BICUBIC, expand=True, fillcolor=(0, 0, 0, 0)
        )
    return picture


def _centred(picture: Any, width: int, height: int) -> Any:
    """*picture* in linear light in the middle of *width* by *height* clear pixels."""
    values = numpy.asarray(picture, dtype=numpy.float32) / 255.0
    values[..., :3] = layer_blending.to_linear(values[..., :3])
    result = numpy.zeros((height, width, 4), dtype=numpy.float32)
    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    inside = values[max(-top, 0) : height - top, max(-left, 0) : width - left]
    result[max(top, 0) : max(top, 0) + inside.shape[0], max(left, 0) : max(left, 0) + inside.shape[1]] = inside
    return result
