"""Normalised attention guidance (Chen et al. 2025, arXiv:2505.21179): negative prompts inside attention, also for distilled models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")
patching = lazy_module("comfy.patching.patched_models")

TINY = 1e-6


def guided_features(positive: Tensor, negative: Tensor, scale: float, alpha: float, tau: float) -> Tensor:
    """*positive* (B×N×C) moved away from *negative*, its L1 norm at most *tau* times what it was, and *alpha* of that mixed in."""
    moved = positive * scale - negative * (scale - 1.0)
    length, longer = (x.norm(p=1, dim=-1, keepdim=True).clamp_min(TINY) for x in (positive, moved))
    growth = longer / length
    return moved * (growth.clamp(max=tau) / growth) * alpha + positive * (1.0 - alpha)


class NAGuidance(io.ComfyNode):
    """Guides self-attention, and the joint attention of transformers, away from the negative prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        scale = "How far the result moves away from the negative prompt; 1 not at all."
        alpha = "How much of the moved result is used; 0 has no effect."
        return io.Schema(
            node_id="NAGuidance",
            display_name="Normalized Attention Guidance",
            category="advanced/guidance",
            description="Makes negative prompts work for distilled models, which take no guidance, by guiding their attention.",
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                io.Float.Input("nag_scale", min=0.0, default=5.0, max=50.0, step=0.1, tooltip=scale),
                io.Float.Input("nag_alpha", min=0.0, default=0.5, max=1.0, step=0.01, tooltip=alpha),
                io.Float.Input("nag_tau", min=1.0, default=1.5, max=10.0, step=0.01),
            ],
            outputs=[io.Model.Output(tooltip="The guided model.")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, nag_scale: float, nag_alpha: float, nag_tau: float) -> io.NodeOutput:
        """A clone of *model* that computes both sides, whatever the guidance scale."""

        def guide(out: Tensor, extra_options: dict[str, Any]) -> Tensor:
            sides = extra_options.get("cond_or_uncond") or ()
            if 0 not in sides or 1 not in sides:
                return out
            picture = slice(*extra_options["img_slice"][:2]) if extra_options.get("img_slice") is not None else slice(None)
            size = out.shape[0] // len(sides)
            positive, negative = (slice(size * sides.index(side), size * (sides.index(side) + 1)) for side in (0, 1))
            guided = guided_features(out[positive, picture], out[negative, picture], nag_scale, nag_alpha, nag_tau)
            out[positive, picture] = guided
            if extra_options.get("img_slice") is not None:  # in joint attention the negative side's text follows its picture
                out[negative, picture] = guided
            return out

        def build(clone: ModelPatcher) -> None:
            clone.set_model_attn1_output_patch(guide)
            clone.disable_model_cfg1_optimization()

        return io.NodeOutput(patching.patched_models().patched(model, (), build))


comfy_entrypoint = extension_of(NAGuidance)
