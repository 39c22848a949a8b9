"""Guidance whose result is scaled: CFG-Zero* (Fan et al. 2025, arXiv:2503.18886), and to the length of the positive prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

CATEGORY = "advanced/guidance"
TINY = 1e-8


def optimized_scale(positive: Tensor, negative: Tensor) -> Tensor:
    """By what *negative* must be multiplied to come nearest to *positive* (both B×…), for each picture: B×1×…"""
    flat_positive, flat_negative = positive.flatten(1), negative.flatten(1)
    scale = (flat_positive * flat_negative).sum(1) / ((flat_negative**2).sum(1) + TINY)
    return scale.view(-1, *[1] * (positive.ndim - 1))


def _zero_star(args: dict[str, Any]) -> Tensor:
    x, uncond, guided = args["input"], args["uncond_denoised"], args["denoised"]
    scale = optimized_scale(x - args["cond_denoised"], x - uncond)
    return guided + uncond * (scale - 1.0) + args["cond_scale"] * uncond * (1.0 - scale)


def _length(x: Tensor) -> Tensor:
    """Of each pixel's channels."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True)


class CFGZeroStar(io.ComfyNode):
    """Scales the negative prediction to the positive one before guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema("CFGZeroStar", CATEGORY, output_name="patched_model")

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        """A clone of *model*."""
        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(_zero_star)
        return io.NodeOutput(clone)


class CFGNorm(io.ComfyNode):
    """Brings each pixel of the guided result to the length that it has in the positive prediction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "CFGNorm",
            CATEGORY,
            io.Float.Input("strength", default=1.0, min=0.0, max=100.0, step=0.01),
            io.Boolean.Input(
                "pre_cfg",
                default=False,
                optional=True,
                tooltip="On: the guided noise gets the positive noise's length, longer ones too, as models like Lens are guided. "
                "Off: the guided picture is only ever shortened, to the length of the positive one.",
            ),
            output_name="patched_model",
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, strength: float, pre_cfg: bool = False) -> io.NodeOutput:
        """A clone of *model*. *strength* multiplies the shortened picture, or mixes noise of the right length with plain guidance."""

        def noise_of_length(args: dict[str, Any]) -> Tensor:
            cond, uncond = args["cond"], args["uncond"]
            guided = uncond + args["cond_scale"] * (cond - uncond)
            length = _length(guided)
            ratio = torch.where(length > 0, _length(cond) / length.clamp_min(1e-12), torch.ones_like(length))
            return guided * ratio if strength == 1.0 else strength * (guided * ratio) + (1.0 - strength) * guided

        def shortened_picture(args: dict[str, Any]) -> Tensor:
            guided = args["denoised"]
            return guided * (_length(args["cond_denoised"]) / (_length(guided) + TINY)).clamp(0.0, 1.0) * strength

        clone = model.clone()
        if pre_cfg:
            clone.set_model_sampler_cfg_function(noise_of_length)
        else:
            clone.set_model_sampler_post_cfg_function(shortened_picture)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(CFGZeroStar, CFGNorm)
