"""Deep shrink: a UNet works on smaller features in its first steps, so that large pictures keep their composition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema, share_input
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

utils = lazy_module("comfy.utils")
patching = lazy_module("comfy.patching.patched_models")


class PatchModelAddDownscale(io.ComfyNode):
    """Makes the features smaller after one input block, and larger again where they meet those that were stored before."""

    UPSCALE_METHODS = ("bicubic", "nearest-exact", "bilinear", "area", "bislerp")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "PatchModelAddDownscale",
            "model/patch/unet",
            io.Int.Input("block_number", default=3, min=1, max=32, step=1, advanced=True),
            io.Float.Input("downscale_factor", default=2.0, min=0.1, max=9.0, step=0.001),
            share_input("start_percent", 0.0),
            share_input("end_percent", 0.35),
            io.Boolean.Input("downscale_after_skip", default=True, advanced=True),
            *(io.Combo.Input(name, options=list(cls.UPSCALE_METHODS)) for name in ("downscale_method", "upscale_method")),
            display_name="PatchModelAddDownscale (Kohya Deep Shrink)",
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        block_number: int,
        downscale_factor: float,
        start_percent: float,
        end_percent: float,
        downscale_after_skip: bool,
        downscale_method: str,
        upscale_method: str,
    ) -> io.NodeOutput:
        """A clone of *model* that does so between both shares of the sampling."""
        sampling = model.get_model_object("model_sampling")
        highest, lowest = sampling.percent_to_sigma(start_percent), sampling.percent_to_sigma(end_percent)

        def shrink(h: Tensor, transformer_options: dict[str, Any]) -> Tensor:
            is_here = transformer_options["block"][1] == block_number
            if not is_here or not lowest <= transformer_options["sigmas"][0].item() <= highest:
                return h
            width, height = (round(side * (1.0 / downscale_factor)) for side in (h.shape[-1], h.shape[-2]))
            return utils.common_upscale(h, width, height, downscale_method, "disabled")

        def grow(h: Tensor, hsp: Tensor, transformer_options: dict[str, Any]) -> tuple[Tensor, Tensor]:
            if h.shape[2] != hsp.shape[2]:
                h = utils.common_upscale(h, hsp.shape[-1], hsp.shape[-2], upscale_method, "disabled")
            return h, hsp

        def build(clone: ModelPatcher) -> None:
            (clone.set_model_input_block_patch_after_skip if downscale_after_skip else clone.set_model_input_block_patch)(shrink)
            clone.set_model_output_block_patch(grow)

        return io.NodeOutput(patching.patched_models().patched(model, (), build))


comfy_entrypoint = extension_of(PatchModelAddDownscale)
