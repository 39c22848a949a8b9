"""The older import path of images, masks, sound and latents."""

from comfy_api.latest._input.basic_types import AudioInput, ImageInput, LatentInput, MaskInput

__all__ = ["AudioInput", "ImageInput", "LatentInput", "MaskInput"]
