"""Conditioning for models that change a picture by an instruction (InstructPix2Pix)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import socket

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

PIXELS_PER_CELL = 8


class InstructPixToPixConditioning:
    """Passes a picture to a model that changes it by an instruction, and an empty latent of its size to the sampler."""

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")
    FUNCTION = "execute"
    CATEGORY = "model/conditioning/instructpix2pix"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = {"positive": "CONDITIONING", "negative": "CONDITIONING", "vae": "VAE", "pixels": "IMAGE"}
        return {"required": {name: socket(kind) for name, kind in kinds.items()}}

    @classmethod
    def execute(cls, positive: Conditioning, negative: Conditioning, pixels: Tensor, vae: VAE) -> tuple[Conditioning, Conditioning, Latent]:
        """*pixels*, B x height x width x 3, are cut around the centre to multiples of 8."""
        for axis in (1, 2):
            size = pixels.shape[axis]
            pixels = pixels.narrow(axis, size % PIXELS_PER_CELL // 2, size - size % PIXELS_PER_CELL)
        encoded = vae.encode(pixels)
        values = {"concat_latent_image": encoded}
        positive, negative = (node_helpers.conditioning_set_values(conditioning, values) for conditioning in (positive, negative))
        return positive, negative, {"samples": torch.zeros_like(encoded)}


NODE_CLASS_MAPPINGS = {"InstructPixToPixConditioning": InstructPixToPixConditioning}
