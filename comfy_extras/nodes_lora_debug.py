"""Nodes that add a LoRA to the results of layers and leave the weights as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_extras.core_loaders import ForModelOnly, LoraNode

if TYPE_CHECKING:
    from comfy.loading.lora_files import LoraTensors
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

sd = lazy_module("comfy.sd")


class LoraLoaderBypass(LoraNode):
    """Adds a LoRA to a diffusion model and a text encoder."""

    DESCRIPTION = "Computes a LoRA beside the layers at each call, for weights that are not to be changed. Slower than applying it once."
    EXPERIMENTAL = True

    def _changed(
        self, model: ModelPatcher, clip: CLIP | None, lora: LoraTensors, strength_model: float, strength_clip: float
    ) -> tuple[ModelPatcher, CLIP | None]:
        return sd.load_bypass_lora_for_models(model, clip, lora, strength_model, strength_clip)


class LoraLoaderBypassModelOnly(ForModelOnly, LoraLoaderBypass):
    """Adds a LoRA to a diffusion model only."""


NODE_CLASS_MAPPINGS = {"LoraLoaderBypass": LoraLoaderBypass, "LoraLoaderBypassModelOnly": LoraLoaderBypassModelOnly}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoraLoaderBypass": "Load LoRA (Bypass) (For debugging)",
    "LoraLoaderBypassModelOnly": "Load LoRA (Bypass, Model Only) (for debugging)",
}
