"""Nodes that load a text encoder of three files and make latents of sixteen channels.

Other names of Stable Diffusion 3 models are :mod:`comfy.placeholders`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy.placeholders import placeholders
from comfy_extras.core_loaders import load_text_encoders
from comfy_extras.node_inputs import pixels, whole

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

CHANNELS, PIXELS_PER_CELL = 16, 8


class TripleCLIPLoader:
    """Loads a text encoder made of three files."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "model/loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("text_encoders")
        return {"required": {f"clip_name{number}": (files,) for number in range(1, 4)}}

    @classmethod
    def execute(cls, clip_name1: str, clip_name2: str, clip_name3: str) -> tuple[CLIP]:
        """The text encoder. Raises ``ModelFileError`` for text models of which no supported family is made."""
        return load_text_encoders([clip_name1, clip_name2, clip_name3])

    load_clip = execute


class EmptySD3LatentImage:
    """Makes zero latents with the sixteen channels of Stable Diffusion 3 and Flux."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "model/latent/stable diffusion"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"width": pixels(1024, 16, 16), "height": pixels(1024, 16, 16), "batch_size": whole(1, 1, 4096)}}

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        """*batch_size* latents for pictures of *width* x *height* pixels."""
        shape = (batch_size, CHANNELS, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)
        samples = torch.zeros(shape, device=model_management.intermediate_device(), dtype=model_management.intermediate_dtype())
        return ({"samples": samples, "downscale_ratio_spacial": PIXELS_PER_CELL},)

    generate = execute


__getattr__, __dir__ = placeholders(
    __name__, "Stable Diffusion 3 models", "CLIPTextEncodeSD3:object ControlNetApplySD3:object SkipLayerGuidanceSD3:object"
)

NODE_CLASS_MAPPINGS = {"TripleCLIPLoader": TripleCLIPLoader, "EmptySD3LatentImage": EmptySD3LatentImage}
NODE_DISPLAY_NAME_MAPPINGS = {"TripleCLIPLoader": "Load CLIP (Triple)"}
