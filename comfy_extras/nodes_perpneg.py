"""Guidance away from what a negative prompt does not share with the positive one (Armandpour et al. 2023, arXiv:2304.04968)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.sampler_helpers
import comfy.samplers
import node_helpers
from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning


def perp_neg(
    x: Tensor, noise_pred_pos: Tensor, noise_pred_neg: Tensor, noise_pred_nocond: Tensor, neg_scale: float, cond_scale: float
) -> Tensor:
    """The guided latent from those of the positive, the negative and the empty prompt, all of one shape; *x* is not used."""
    positive, negative = noise_pred_pos - noise_pred_nocond, noise_pred_neg - noise_pred_nocond
    shared = (negative * positive).sum() / positive.norm() ** 2
    return noise_pred_nocond + cond_scale * (positive - neg_scale * (negative - shared * positive))


class Guider_PerpNeg(comfy.samplers.CFGGuider):  # noqa: N801 - the name packs import
    """A guider with a positive, a negative and an empty conditioning."""

    def set_conds(self, positive: Any, negative: Any, empty_negative_prompt: Any) -> None:  # type: ignore[override]  # ComfyUI's signature
        """Set all three."""
        empty = node_helpers.conditioning_set_values(empty_negative_prompt, {"prompt_type": "negative"})
        self.inner_set_conds({"positive": positive, "empty_negative_prompt": empty, "negative": negative})

    def set_cfg(self, cfg: float, neg_scale: float) -> None:  # type: ignore[override]  # ComfyUI's signature
        """Set the scale of guidance and that of the negative prompt in it."""
        self.cfg, self.neg_scale = cfg, neg_scale

    def predict_noise(self, x: Any, timestep: Any, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Any:
        """The guided denoised latent, all three computed at once. Sides that do not count at these scales are left out."""
        options = {} if model_options is None else model_options
        conds = [self.conds.get(name) for name in ("positive", "negative", "empty_negative_prompt")]
        if not options.get("disable_cfg1_optimization", False) and math.isclose(self.neg_scale, 0.0):
            conds[1] = None
            conds[2] = None if math.isclose(self.cfg, 1.0) else conds[2]
        common = {"input": x, "sigma": timestep, "cond_scale": self.cfg, "model": self.inner_model, "model_options": options}
        predictions = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, options)
        for function in options.get("sampler_pre_cfg_function", ()):
            predictions = function({**common, "conds": conds, "conds_out": predictions, "timestep": timestep})
        positive, negative, empty = predictions
        result = perp_neg(x, positive, negative, empty, self.neg_scale, self.cfg)
        sides = {"cond": conds[0], "uncond": conds[1], "empty_cond": conds[2]}
        denoised = {"cond_denoised": positive, "uncond_denoised": negative, "empty_cond_denoised": empty}
        for function in options.get("sampler_post_cfg_function", ()):
            result = function({**common, **sides, **denoised, "denoised": result})
        return result


def _scale() -> io.Float.Input:
    return io.Float.Input("neg_scale", default=1.0, min=0.0, max=100.0, step=0.01, advanced=True)


class PerpNeg(io.ComfyNode):
    """Changes a model's guidance to perpendicular negative prompts; the older node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PerpNeg",
            display_name="Perp-Neg (DEPRECATED by Perp-Neg Guider)",
            category="experimental",
            inputs=[io.Model.Input("model"), io.Conditioning.Input("empty_conditioning"), _scale()],
            outputs=[io.Model.Output()],
            is_experimental=True,
            is_deprecated=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, empty_conditioning: Conditioning, neg_scale: float) -> io.NodeOutput:
        """A clone of *model*."""
        empty = comfy.sampler_helpers.convert_cond(empty_conditioning)

        def guided(args: dict[str, Any]) -> Tensor:
            x, inner = args["input"], args["model"]
            prepared = comfy.samplers.encode_model_conds(inner.extra_conds, empty, x, x.device, "negative")
            (nothing,) = comfy.samplers.calc_cond_batch(inner, [prepared], x, args["sigma"], args["model_options"])
            return x - perp_neg(x, args["cond_denoised"], args["uncond_denoised"], nothing, neg_scale, args["cond_scale"])

        clone = model.clone()
        clone.set_model_sampler_cfg_function(guided)
        return io.NodeOutput(clone)


class PerpNegGuider(io.ComfyNode):
    """Makes a guider with perpendicular negative prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        conditionings = [io.Conditioning.Input(name) for name in ("positive", "negative", "empty_conditioning")]
        cfg = io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01)
        return io.Schema(
            node_id="PerpNegGuider",
            display_name="Perp-Neg Guider",
            category="experimental",
            inputs=[io.Model.Input("model"), *conditionings, cfg, _scale()],
            outputs=[io.Guider.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        empty_conditioning: Conditioning,
        cfg: float,
        neg_scale: float,
    ) -> io.NodeOutput:
        """The guider."""
        guider = Guider_PerpNeg(model)
        guider.set_conds(positive, negative, empty_conditioning)
        guider.set_cfg(cfg, neg_scale)
        return io.NodeOutput(guider)


NODE_CLASS_MAPPINGS = {"PerpNeg": PerpNeg, "PerpNegGuider": PerpNegGuider}
NODE_DISPLAY_NAME_MAPPINGS = {"PerpNeg": "Perp-Neg (DEPRECATED by Perp-Neg Guider)", "PerpNegGuider": "Perp-Neg Guider"}
