"""Guidance that follows the positive prediction the more, the less it agrees with the negative one."""

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


def _signed_root(x: Tensor) -> Tensor:
    return x.abs().sqrt() * x.sign()


def _positive_biased(args: dict[str, Any]) -> Tensor:
    guided, scale = args["denoised"], args["cond_scale"]
    leap = args["cond_denoised"] * scale
    between = (leap + guided) / 2
    agreement = torch.nn.functional.cosine_similarity(_signed_root(args["uncond_denoised"] * scale), _signed_root(between)).mean()
    weight = 2 * (agreement + 1)  # 0 to 4
    return (weight * guided + (4 - weight) * leap) / 4


class Mahiro(io.ComfyNode):
    """Biases guidance towards the positive prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "Mahiro",
            "experimental",
            output_name="patched_model",
            display_name="Positive-Biased Guidance",
            description="Lets guidance go where the positive prompt points, more than away from the negative one.",
            search_aliases=["mahiro", "mahiro cfg", "similarity-adaptive guidance", "positive-biased cfg"],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        """A clone of *model*."""
        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(_positive_biased)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(Mahiro)
