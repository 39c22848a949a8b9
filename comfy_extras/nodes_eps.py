"""Nodes that scale what a step takes away: epsilon scaling (Ning et al. 2023, arXiv:2308.15321) and temporal score rescaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.solver_run import sigma_to_half_log_snr
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

CATEGORY = "model/patch/unet"
SMALLEST_FACTOR = 1e-9


class EpsilonScaling(io.ComfyNode):
    """Divides the predicted noise of every step by one factor."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "Epsilon Scaling",
            CATEGORY,
            io.Float.Input(
                "scaling_factor", default=1.005, min=0.5, max=1.5, step=0.001, display_mode=io.NumberDisplay.number, advanced=True
            ),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scaling_factor: float) -> io.NodeOutput:
        """A clone of *model*; a factor of 0 counts as a tiny one."""
        factor = SMALLEST_FACTOR if scaling_factor == 0 else scaling_factor

        def scaled(args: dict[str, Any]) -> Tensor:
            x = args["input"]
            return x - (x - args["denoised"]) / factor

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(scaled)
        return io.NodeOutput(clone)


def compute_tsr_rescaling_factor(snr: Tensor, tsr_k: float, tsr_variance: float) -> Tensor:
    """By what the score is multiplied at signal-to-noise ratios *snr*, of any shape: from 1 to *tsr_k* (arXiv:2510.01184, equation 6)."""
    weighted = snr * tsr_variance
    return torch.where(torch.isposinf(snr), tsr_k, (weighted + 1) / (weighted / tsr_k + 1))


class TemporalScoreRescaling(io.ComfyNode):
    """Scales the predicted noise the more, the less of it is left."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        texts = {
            "tsr_k": "How much the noise of the last steps is scaled. Below 1 gives detail, above 1 smoothness, 1 does nothing.",
            "tsr_sigma": "When scaling begins; a higher value begins at a higher noise level.",
        }
        return io.Schema(
            node_id="TemporalScoreRescaling",
            display_name="TSR - Temporal Score Rescaling",
            category=CATEGORY,
            inputs=[
                io.Model.Input("model"),
                *(
                    io.Float.Input(
                        name,
                        tooltip=texts[name],
                        default=default,
                        min=0.01,
                        max=100.0,
                        step=0.001,
                        display_mode=io.NumberDisplay.number,
                        advanced=True,
                    )
                    for name, default in (("tsr_k", 0.95), ("tsr_sigma", 1.0))
                ),
            ],
            outputs=[io.Model.Output(display_name="patched_model")],
            description="Scales the score after guidance, which makes results more or less varied (arXiv:2510.01184).",
        )

    @classmethod
    def execute(cls, model: ModelPatcher, tsr_k: float, tsr_sigma: float) -> io.NodeOutput:
        """A clone of *model*."""

        def rescaled(args: dict[str, Any]) -> Tensor:
            x, denoised, sigma = args["input"], args["denoised"], args["sigma"]
            if tsr_k == 1 or sigma[0] == 0:
                return denoised
            half_log_snr = sigma_to_half_log_snr(sigma[:1], args["model"].current_patcher.get_model_object("model_sampling"))
            snr = (2 * half_log_snr).exp()
            if snr == 0:
                return denoised
            signal = sigma[:1] * half_log_snr.exp()
            return torch.lerp(x / signal, denoised, compute_tsr_rescaling_factor(snr, tsr_k, tsr_sigma**2))

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(rescaled)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(EpsilonScaling, TemporalScoreRescaling)
