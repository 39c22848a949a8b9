"""Perturbed-attention guidance (Ahn et al. 2024, arXiv:2403.17377): away from what the model gives with one attention switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.samplers
from comfy.patching.model_options import set_model_options_patch_replace
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher


def _values_only(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], mask: Tensor | None = None) -> Tensor:
    """Attention in which every token sees itself alone."""
    return v


class PerturbedAttentionGuidance(io.ComfyNode):
    """Guides a UNet away from its prediction without self-attention in the middle block."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "PerturbedAttentionGuidance",
            "model/patch/unet",
            io.Float.Input("scale", default=3.0, min=0.0, max=100.0, step=0.01, round=0.01),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scale: float) -> io.NodeOutput:
        """A clone of *model*; each step calls it once more, unless *scale* is 0."""

        def guided(args: dict[str, Any]) -> Tensor:
            if scale == 0:
                return args["denoised"]
            options = set_model_options_patch_replace(args["model_options"].copy(), _values_only, "attn1", "middle", 0)
            (perturbed,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], options)
            return args["denoised"] + (args["cond_denoised"] - perturbed) * scale

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(guided)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(PerturbedAttentionGuidance)
