"""Tangential damping (Kwon et al. 2025, arXiv:2503.18137): the negative prediction loses what points away from the positive one."""

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


def score_tangential_damping(cond_score: Tensor, uncond_score: Tensor) -> Tensor:
    """*uncond_score* (B×…) along the direction that both scores of a picture share most, their first singular vector."""
    flat = uncond_score.flatten(1).unsqueeze(1).float()
    both = torch.cat((flat, cond_score.flatten(1).unsqueeze(1).float()), dim=1)
    try:
        vectors = torch.linalg.svd(both, full_matrices=False).Vh
    except RuntimeError:  # a device without singular values
        vectors = torch.linalg.svd(both.cpu(), full_matrices=False).Vh
    shared = vectors[:, :1].to(flat.device)
    return ((flat @ shared.mT) * shared).reshape_as(uncond_score).to(uncond_score.dtype)


def _damped(args: dict[str, Any]) -> list[Tensor]:
    x, pictures = args["input"], args["conds_out"]
    if len(pictures) < 2 or any(cond is None for cond in args["conds"][:2]):
        return pictures
    positive, negative, *others = pictures
    return [positive, x - score_tangential_damping(x - positive, x - negative), *others]


class TCFG(io.ComfyNode):
    """Damps the negative prediction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "TCFG",
            "advanced/guidance",
            output_name="patched_model",
            display_name="Tangential Damping CFG",
            description="Turns the negative prediction towards the positive one before guidance, for better quality (arXiv:2503.18137).",
        )

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        """A clone of *model*."""
        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(_damped)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(TCFG)
