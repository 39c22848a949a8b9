"""Nodes that add a LoRA to the results of layers and leave the weights as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from comfy.loading.lora_files import LoraTensors
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

sd = lazy_module("comfy.sd")
lora_files = lazy_module("comfy.loading.lora_files")


class LoraLoaderBypass:
    """Adds a LoRA to a diffusion model and a text encoder. Keeps the tensors of the last file for the next run."""

    RETURN_TYPES: tuple[str, ...] = ("MODEL", "CLIP")
    OUTPUT_TOOLTIPS = ("The changed diffusion model.", "The changed text encoder.")
    FUNCTION = "load_lora"
    CATEGORY = "model/loaders"
    DESCRIPTION = "Computes a LoRA beside the layers at each call, for weights that are not to be changed. Slower than applying it once."
    EXPERIMENTAL = True

    def __init__(self) -> None:
        self.loaded_lora: LoraTensors | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("loras")
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model to change."}),
                "clip": ("CLIP", {"tooltip": "The text encoder to change."}),
                "lora_name": (files, {"tooltip": "A file of the loras folders."}),
                "strength_model": real(1.0, -100.0, 100.0, tooltip="How strongly the model is changed; may be negative."),
                "strength_clip": real(1.0, -100.0, 100.0, tooltip="How strongly the text encoder is changed; may be negative."),
            }
        }

    def load_lora(
        self, model: ModelPatcher, clip: CLIP | None, lora_name: str, strength_model: float, strength_clip: float
    ) -> tuple[ModelPatcher, CLIP | None]:
        """Changed clones of both; *model* and *clip* themselves if both strengths are 0."""
        if strength_model == 0 and strength_clip == 0:
            return (model, clip)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        before, self.loaded_lora = self.loaded_lora, None
        self.loaded_lora = lora_files.load_lora_file(path, before)
        return sd.load_bypass_lora_for_models(model, clip, self.loaded_lora, strength_model, strength_clip)


class LoraLoaderBypassModelOnly(LoraLoaderBypass):
    """Adds a LoRA to a diffusion model only."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load_lora_model_only"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("loras")
        return {"required": {"model": ("MODEL",), "lora_name": (files,), "strength_model": real(1.0, -100.0, 100.0)}}

    def load_lora_model_only(self, model: ModelPatcher, lora_name: str, strength_model: float) -> tuple[ModelPatcher]:
        """The changed model."""
        return (self.load_lora(model, None, lora_name, strength_model, 0)[0],)


NODE_CLASS_MAPPINGS = {"LoraLoaderBypass": LoraLoaderBypass, "LoraLoaderBypassModelOnly": LoraLoaderBypassModelOnly}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoraLoaderBypass": "Load LoRA (Bypass) (For debugging)",
    "LoraLoaderBypassModelOnly": "Load LoRA (Bypass, Model Only) (for debugging)",
}
