"""Nodes that enlarge pictures by a model; the optional ``spandrel`` package builds the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
spandrel = lazy_module("spandrel")
upscale_loading = lazy_module("comfy_extras.chainner_models.upscale_loading")

TILE, SMALLEST_TILE, OVERLAP = 512, 128, 32
WORKING_BYTES_PER_VALUE = 384.0  # estimated: what such models need for one value of a tile, times the scale


class UpscaleModelLoader(io.ComfyNode):
    """Loads an upscaling model."""

    READS_AHEAD = {"model_name": "upscale_models"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UpscaleModelLoader",
            display_name="Load Upscale Model",
            category="model/loaders",
            inputs=[io.Combo.Input("model_name", options=folder_paths.get_filename_list("upscale_models"))],
            outputs=[io.UpscaleModel.Output()],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        """spandrel's descriptor, with a ``patcher``. Raises ``RuntimeError`` without spandrel, ``ValueError`` for models of other kinds."""
        model = upscale_loading.load_upscale_model(folder_paths.get_full_path_or_raise("upscale_models", model_name))
        if not isinstance(model, spandrel.ImageModelDescriptor):
            raise ValueError(f"{model_name} is not a model for single pictures")
        return io.NodeOutput(model)

    load_model = execute


class ImageUpscaleWithModel(io.ComfyNode):
    """Enlarges pictures by a model, tile by tile."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageUpscaleWithModel",
            display_name="Upscale Image (using Model)",
            category="image/upscaling",
            search_aliases=["upscale", "upscaler", "upsc", "enlarge image", "super resolution", "hires", "superres", "increase resolution"],
            inputs=[io.UpscaleModel.Input("upscale_model"), io.Image.Input("image")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, upscale_model: Any, image: Tensor) -> io.NodeOutput:
        """The pictures, as many times larger as the model makes them. Where memory is short, tiles are halved until they are small."""
        tile_bytes = TILE * TILE * 3 * image.element_size() * max(upscale_model.scale, 1.0) * WORKING_BYTES_PER_VALUE
        needed = tile_bytes + image.numel() * image.element_size()
        management.load_models_gpu([upscale_model.patcher], memory_required=needed, force_full_load=True)
        pictures = image.movedim(-1, -3).to(upscale_model.patcher.load_device)
        tile = TILE
        while True:
            try:
                return io.NodeOutput(cls._enlarged(upscale_model, pictures, tile))
            except RuntimeError as error:
                management.raise_non_oom(error)
                tile //= 2
                if tile < SMALLEST_TILE:
                    raise

    @staticmethod
    def _enlarged(model: Any, pictures: Tensor, tile: int) -> Tensor:
        steps = comfy.utils.get_tiled_scale_steps(pictures.shape[3], pictures.shape[2], tile_x=tile, tile_y=tile, overlap=OVERLAP)
        large = comfy.utils.tiled_scale(
            pictures,
            lambda piece: model(piece.float()),
            tile_x=tile,
            tile_y=tile,
            overlap=OVERLAP,
            upscale_amount=model.scale,
            pbar=comfy.utils.ProgressBar(steps * len(pictures)),
            output_device=management.intermediate_device(),
        )
        return large.movedim(-3, -1).clamp(0, 1).to(management.intermediate_dtype())

    upscale = execute


NODE_CLASS_MAPPINGS = {"UpscaleModelLoader": UpscaleModelLoader, "ImageUpscaleWithModel": ImageUpscaleWithModel}
NODE_DISPLAY_NAME_MAPPINGS = {"UpscaleModelLoader": "Load Upscale Model", "ImageUpscaleWithModel": "Upscale Image (using Model)"}
