"""Nodes for LoRAs that are passed on as tensors; those that train them are not here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

sd = lazy_module("comfy.sd")
utils = lazy_module("comfy.utils")

LORA = "LORA_MODEL"  # {name: tensor}


class LoraModelLoader(io.ComfyNode):
    """Applies a LoRA that another node made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        bypass = "Computes the LoRA beside the layers and leaves the weights as they are."
        return io.Schema(
            node_id="LoraModelLoader",
            display_name="Load LoRA Model",
            category="model/loaders",
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to change."),
                io.Custom(LORA).Input("lora", tooltip="The LoRA."),
                io.Float.Input(
                    "strength_model", default=1.0, min=-100.0, max=100.0, tooltip="How strongly the model is changed; may be negative."
                ),
                io.Boolean.Input("bypass", default=False, tooltip=bypass),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The changed diffusion model.")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, lora: dict[str, Any], strength_model: float, bypass: bool = False) -> io.NodeOutput:
        """A changed clone; *model* itself at a strength of 0."""
        if strength_model == 0:
            return io.NodeOutput(model)
        load = sd.load_bypass_lora_for_models if bypass else sd.load_lora_for_models
        return io.NodeOutput(load(model, None, lora, strength_model, 0)[0])


class SaveLoRA(io.ComfyNode):
    """Saves a LoRA that another node made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveLoRA",
            search_aliases=["export lora"],
            display_name="Save LoRA Weights",
            category="model/merging",
            inputs=[
                io.Custom(LORA).Input("lora", tooltip="The LoRA, not the model that it was applied to."),
                io.String.Input("prefix", default="loras/ComfyUI_trained_lora", tooltip="Where the file goes, and how its name begins."),
                io.Int.Input("steps", optional=True, tooltip="How many steps it was trained for, for the file's name."),
            ],
            outputs=[],
            is_experimental=True,
            is_output_node=True,
        )

    @classmethod
    def execute(cls, lora: dict[str, Any], prefix: str, steps: int | None = None) -> io.NodeOutput:
        """Write it as safetensors into the output folder."""
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
        trained = "" if steps is None else f"_{steps}_steps"
        tensors = {key: tensor.contiguous() for key, tensor in lora.items()}
        utils.save_torch_file(tensors, os.path.join(folder, f"{name}{trained}_{counter:05}_.safetensors"))
        return io.NodeOutput()


comfy_entrypoint = extension_of(LoraModelLoader, SaveLoRA)
