"""Images, masks, sound and latents, at their older import place."""

from comfy_api.latest._input.basic_types import AudioInput, ImageInput, LatentInput, MaskInput

__all__ = ["AudioInput", "ImageInput", "LatentInput", "MaskInput"]
