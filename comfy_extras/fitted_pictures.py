"""Pictures brought to about a number of pixels, as models want those that they look at, and conditionings that know them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.utils
import node_helpers

if TYPE_CHECKING:
    from torch import Tensor


def with_area(image: Tensor, side: int, grid: int = 1) -> Tensor:
    """*image* (B×H×W×C) with about *side*×*side* pixels in its own proportions, sides in multiples of *grid*."""
    samples = image.movedim(-1, 1)
    height, width = samples.shape[2:]
    scale = math.sqrt(side * side / (width * height))
    new_width, new_height = (max(1, round(length * scale / grid)) * grid for length in (width, height))
    return comfy.utils.common_upscale(samples, new_width, new_height, "area", "disabled").movedim(1, -1)


def with_references(conditioning: Any, latents: list[Tensor]) -> Any:
    """*conditioning* with the pictures' *latents* behind those it knows; itself without any."""
    if not latents:
        return conditioning
    return node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents}, append=True)
