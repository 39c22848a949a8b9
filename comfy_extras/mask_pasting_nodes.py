"""Nodes that paste latents or images into others through a mask (part of ``nodes_mask``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import boolean, pixels, socket

if TYPE_CHECKING:
    from torch import Tensor

    from comfy_extras.node_values import Latent

torch = lazy_module("torch")


def composite(
    destination: Tensor, source: Tensor, x: int, y: int, mask: Tensor | None = None, multiplier: int = 8, resize_source: bool = False
) -> Tensor:
    """Paste *source* over *destination* (both B×C×H×W) in place where *mask* is 1, and mix them where it is below 1; returns *destination*.

    *x* and *y* are in units of 1/*multiplier* cell and may be negative; the source is cut at the destination's edges. It is repeated to
    the batch size of the destination and with *resize_source* stretched to its size; the mask is stretched to the source.
    """
    source = source.to(destination.device)
    height, width = destination.shape[-2:]
    if resize_source:
        source = torch.nn.functional.interpolate(source, size=(height, width), mode="bilinear")
    source = comfy.utils.repeat_to_batch_size(source, destination.shape[0])
    mask = _paste_mask(mask, source)
    left, top = x // multiplier, y // multiplier
    skip_left, skip_top = max(0, -left), max(0, -top)
    area = (..., slice(skip_top, max(0, height - top)), slice(skip_left, max(0, width - left)))
    source, mask = source[area], mask[area]
    rows = slice(top + skip_top, top + skip_top + source.shape[-2])
    target = destination[..., rows, left + skip_left : left + skip_left + source.shape[-1]]
    if target.numel():
        target[:] = mask * source + (torch.ones_like(mask) - mask) * target
    return destination


def _paste_mask(mask: Tensor | None, source: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(source)
    planes = mask.to(source.device).reshape(-1, 1, *mask.shape[-2:])
    planes = torch.nn.functional.interpolate(planes, size=source.shape[-2:], mode="bilinear")
    planes = comfy.utils.repeat_to_batch_size(planes, source.shape[0])
    return planes if planes.ndim == source.ndim else planes.unsqueeze(1)


class _PastingNode:
    """Inputs of the two nodes that paste with a mask."""

    FUNCTION = "execute"
    RETURN_TYPES: tuple[str, ...]
    STEP = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kind = cls.RETURN_TYPES[0]
        return {
            "required": {
                "destination": socket(kind),
                "source": socket(kind),
                "x": pixels(0, step=cls.STEP),
                "y": pixels(0, step=cls.STEP),
                "resize_source": boolean(False),
            },
            "optional": {"mask": socket("MASK")},
        }


class LatentCompositeMasked(_PastingNode):
    """Pastes latents into others through a mask; positions are in pixels."""

    RETURN_TYPES = ("LATENT",)
    CATEGORY = "model/latent"
    SEARCH_ALIASES = ["overlay latent", "layer latent", "paste latent", "inpaint latent"]
    STEP = 8

    @classmethod
    def execute(cls, destination: Latent, source: Latent, x: int, y: int, resize_source: bool, mask: Tensor | None = None) -> tuple[Latent]:
        """A copy of *destination* with *source* pasted in."""
        samples = composite(destination["samples"].clone(), source["samples"], x, y, mask, 8, resize_source)
        return ({**destination, "samples": samples},)

    composite = execute


class ImageCompositeMasked(_PastingNode):
    """Pastes images into others through a mask."""

    RETURN_TYPES = ("IMAGE",)
    CATEGORY = "image/compositing"
    SEARCH_ALIASES = ["overlay", "layer", "paste image", "images composition"]

    @classmethod
    def execute(cls, destination: Tensor, source: Tensor, x: int, y: int, resize_source: bool, mask: Tensor | None = None) -> tuple[Tensor]:
        """A copy of *destination* with *source* pasted in."""
        destination, source = node_helpers.image_alpha_fix(destination, source)
        pasted = composite(destination.clone().movedim(-1, 1), source.movedim(-1, 1), x, y, mask, 1, resize_source)
        return (pasted.movedim(1, -1),)

    composite = execute
