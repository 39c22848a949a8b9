"""Nodes for images with transparency: they apply Porter-Duff operators, and split off and join alpha channels.

The operators follow Porter and Duff, "Compositing digital images" (1984), and the blend modes of the W3C compositing document.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_extras.core_images import resize_images
from comfy_extras.node_inputs import combo, socket

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

SMALLEST_ALPHA = 1e-5

PorterDuffMode = Enum(
    "PorterDuffMode",
    "ADD CLEAR DARKEN DST DST_ATOP DST_IN DST_OUT DST_OVER LIGHTEN MULTIPLY OVERLAY SCREEN SRC SRC_ATOP SRC_IN SRC_OUT SRC_OVER XOR",
    start=0,
)

# Operators as (share of the source, share of the destination), each a function of the two alphas.
_SHARES = {
    "CLEAR": (lambda s, d: 0 * d, lambda s, d: 0 * s),
    "DST": (lambda s, d: 0 * d, lambda s, d: s * 0 + 1),
    "DST_ATOP": (lambda s, d: 1 - d, lambda s, d: s),
    "DST_IN": (lambda s, d: 0 * d, lambda s, d: s),
    "DST_OUT": (lambda s, d: 0 * d, lambda s, d: 1 - s),
    "DST_OVER": (lambda s, d: 1 - d, lambda s, d: s * 0 + 1),
    "SRC": (lambda s, d: d * 0 + 1, lambda s, d: 0 * s),
    "SRC_ATOP": (lambda s, d: d, lambda s, d: 1 - s),
    "SRC_IN": (lambda s, d: d, lambda s, d: 0 * s),
    "SRC_OUT": (lambda s, d: 1 - d, lambda s, d: 0 * s),
    "SRC_OVER": (lambda s, d: d * 0 + 1, lambda s, d: 1 - s),
    "XOR": (lambda s, d: 1 - d, lambda s, d: 1 - s),
}


def resize_mask(mask: Tensor, shape: Any) -> Tensor:
    """Masks stretched to the height and width that *shape* starts with; B×H×W."""
    planes = mask.reshape(-1, 1, *mask.shape[-2:])
    return torch.nn.functional.interpolate(planes, size=tuple(shape[:2]), mode="bilinear").squeeze(1)


def porter_duff_composite(
    src_image: Tensor, src_alpha: Tensor, dst_image: Tensor, dst_alpha: Tensor, mode: PorterDuffMode
) -> tuple[Tensor, Tensor]:
    """Combine two pictures (…×C) with masks (…×1, 1 = transparent) by *mode*; returns the picture and its mask."""
    source_alpha, target_alpha = 1 - src_alpha, 1 - dst_alpha
    source, target = src_image * source_alpha, dst_image * target_alpha
    if mode.name in _SHARES:
        source_share, target_share = (share(source_alpha, target_alpha) for share in _SHARES[mode.name])
        colour = source * source_share + target * target_share
        alpha = source_alpha * source_share + target_alpha * target_share
    else:
        colour, alpha = _blend(source, source_alpha, target, target_alpha, mode)
    colour = torch.where(alpha > SMALLEST_ALPHA, colour / alpha, torch.zeros_like(colour))
    return torch.clamp(colour, 0, 1), 1 - alpha


def _blend(source: Tensor, source_alpha: Tensor, target: Tensor, target_alpha: Tensor, mode: PorterDuffMode) -> tuple[Tensor, Tensor]:
    """Apply the modes that mix colours; colours are multiplied by their alpha before and after."""
    both, union = source_alpha * target_alpha, source_alpha + target_alpha - source_alpha * target_alpha
    if mode is PorterDuffMode.ADD:
        return torch.clamp(source + target, 0, 1), torch.clamp(source_alpha + target_alpha, 0, 1)
    if mode is PorterDuffMode.MULTIPLY:
        return source * target, both
    if mode is PorterDuffMode.SCREEN:
        return source + target - source * target, union
    if mode is PorterDuffMode.OVERLAY:
        light = both - 2 * (target_alpha - source) * (source_alpha - target)
        return torch.where(2 * target < target_alpha, 2 * source * target, light), union
    choose = torch.min if mode is PorterDuffMode.DARKEN else torch.max
    return (1 - target_alpha) * source + (1 - source_alpha) * target + choose(source, target), union


class PorterDuffImageComposite:
    """Combines images and their masks; everything is resized to the destination."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "execute"
    CATEGORY = "image/compositing"
    SEARCH_ALIASES = ["alpha composite", "blend modes", "layer blend", "transparency blend"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "source": socket("IMAGE"),
                "source_alpha": socket("MASK"),
                "destination": socket("IMAGE"),
                "destination_alpha": socket("MASK"),
                "mode": combo([mode.name for mode in PorterDuffMode], default="DST"),
            }
        }

    @classmethod
    def execute(
        cls, source: Tensor, source_alpha: Tensor, destination: Tensor, destination_alpha: Tensor, mode: str
    ) -> tuple[Tensor, Tensor]:
        """The combined images and masks, as many as the shortest input has. Raises ``ValueError`` when the numbers of channels differ."""
        if source.shape[-1] != destination.shape[-1]:
            raise ValueError(
                f"source has {source.shape[-1]} channels and destination {destination.shape[-1]}; remove or add the alpha channel of one"
            )
        count = min(map(len, (source, source_alpha, destination, destination_alpha)))
        target = destination[:count]
        source, source_mask, target_mask = (
            _fit(part[:count], target.shape[1:3]) for part in (source, source_alpha.unsqueeze(-1), destination_alpha.unsqueeze(-1))
        )
        image, mask = porter_duff_composite(source, source_mask, target, target_mask, PorterDuffMode[mode])
        return image, mask.squeeze(-1)

    composite = execute


def _fit(values_BHWC: Tensor, size: Any) -> Tensor:
    return values_BHWC if values_BHWC.shape[1:3] == size else resize_images(values_BHWC, size[1], size[0], "bicubic", "center")


class SplitImageWithAlpha:
    """Separates the alpha channel from images."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "execute"
    CATEGORY = "image/compositing"
    SEARCH_ALIASES = ["extract alpha", "separate transparency", "remove alpha"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE")}}

    @classmethod
    def execute(cls, image: Tensor) -> tuple[Tensor, Tensor]:
        """The colours, and masks that are 1 where an image is transparent (all 0 without an alpha channel)."""
        alpha = image[..., 3] if image.shape[-1] > 3 else torch.ones_like(image[..., 0])
        return image[..., :3].contiguous(), 1.0 - alpha

    split_image_with_alpha = execute


class JoinImageWithAlpha:
    """Adds an alpha channel to images."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/compositing"
    SEARCH_ALIASES = ["add transparency", "apply alpha", "composite alpha", "RGBA"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "alpha": socket("MASK")}}

    @classmethod
    def execute(cls, image: Tensor, alpha: Tensor) -> tuple[Tensor]:
        """B×H×W×4: *alpha* is a mask (1 = transparent); the shorter batch is repeated."""
        count = max(len(image), len(alpha))
        opacity = 1.0 - resize_mask(alpha.to(image), image.shape[1:])
        opacity, image = (comfy.utils.repeat_to_batch_size(values, count) for values in (opacity, image))
        return (torch.cat((image[..., :3], opacity.unsqueeze(-1)), dim=-1),)

    join_image_with_alpha = execute


NODE_CLASS_MAPPINGS = {
    "PorterDuffImageComposite": PorterDuffImageComposite,
    "SplitImageWithAlpha": SplitImageWithAlpha,
    "JoinImageWithAlpha": JoinImageWithAlpha,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "PorterDuffImageComposite": "Porter-Duff Image Composite",
    "SplitImageWithAlpha": "Split Image with Alpha",
    "JoinImageWithAlpha": "Join Image with Alpha",
}
