"""Nodes that tell what images show from their background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.bg_removal_model import BackgroundRemovalModel

models = lazy_module("comfy.bg_removal_model")
torch = lazy_module("torch")
FOLDER = "background_removal"


class LoadBackgroundRemovalModel(io.ComfyNode):
    """Loads a model that tells what images show from their background."""

    READS_AHEAD = {"bg_removal_name": FOLDER}

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = sorted(folder_paths.get_filename_list(FOLDER))
        return io.Schema(
            node_id="LoadBackgroundRemovalModel",
            display_name="Load Background Removal Model",
            category="model/loaders",
            inputs=[io.Combo.Input("bg_removal_name", options=names, tooltip="The file of the model.")],
            outputs=[io.BackgroundRemoval.Output("bg_model")],
        )

    @classmethod
    def execute(cls, bg_removal_name: str) -> io.NodeOutput:
        """The model. Raises ``UnknownModelError`` when the file does not hold one."""
        return io.NodeOutput(models.load(folder_paths.get_full_path_or_raise(FOLDER, bg_removal_name)))


class RemoveBackground(io.ComfyNode):
    """Makes masks of what images show."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RemoveBackground",
            display_name="Remove Background",
            category="image/background removal",
            description="Makes a mask of what is in the foreground of each image.",
            inputs=[io.BackgroundRemoval.Input("bg_removal_model"), io.Image.Input("image")],
            outputs=[io.Mask.Output("mask", tooltip="How much of each pixel is foreground.")],
        )

    @classmethod
    def execute(cls, bg_removal_model: BackgroundRemovalModel, image: Tensor) -> io.NodeOutput:
        """B x height x width."""
        return io.NodeOutput(bg_removal_model.encode_image(image))


comfy_entrypoint = extension_of(LoadBackgroundRemovalModel, RemoveBackground)
