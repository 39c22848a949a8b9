"""Nodes that make a SAMPLER beside the common ones: latent consistency with settings or growing latents, and Euler's method with CFG++."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.samplers
import comfy.utils
from comfy.sampling.cfg_pp import sample_euler_pp
from comfy.sampling.solver_run import SolverRun, without_gradients
from comfy_api.latest import ComfyExtension, io
from comfy_extras.sampler_nodes import SAMPLERS, sampler_schema

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

__all__ = ["SamplerEulerCFGpp", "SamplerLCM", "SamplerLCMUpscale", "comfy_entrypoint", "sample_euler_pp", "sample_lcm_upscale"]


@without_gradients
def sample_lcm_upscale(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    total_upscale: float = 2.0,
    upscale_method: str = "bislerp",
    upscale_steps: int | None = None,
) -> Tensor:
    """Latent consistency sampling whose latent (B×C×H×W) grows to *total_upscale* times its size in the first *upscale_steps* steps.

    By default that is the first half of the steps, at least one. Other arguments: see :mod:`comfy.sampling.solver_run`.
    """
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    growing = max(len(sigmas) // 2, 1) if upscale_steps is None else min(upscale_steps, len(sigmas))
    height, width = x.shape[-2:]
    for step, sigma, sigma_next in run.steps():
        x = run.denoise_and_report(step, x, sigma)
        if step < growing:
            factor = 1 + (total_upscale - 1) * (step + 1) / growing
            x = comfy.utils.common_upscale(x, round(width * factor), round(height * factor), upscale_method, "disabled")
        if sigma_next > 0:
            x = x + sigma_next * run.noise_like(x)
    return x


class SamplerLCMUpscale(io.ComfyNode):
    """Makes a latent consistency sampler that enlarges the latent while it samples."""

    UPSCALE_METHODS = ["bislerp", "nearest-exact", "bilinear", "area", "bicubic"]  # noqa: RUF012 - packs read the list

    @classmethod
    def define_schema(cls) -> io.Schema:
        return sampler_schema(
            "SamplerLCMUpscale",
            [
                io.Float.Input("scale_ratio", default=1.0, min=0.1, max=20.0, step=0.01, advanced=True),
                io.Int.Input("scale_steps", default=-1, min=-1, max=1000, step=1, advanced=True),
                io.Combo.Input("upscale_method", options=cls.UPSCALE_METHODS),
            ],
        )

    @classmethod
    def execute(cls, scale_ratio: float, scale_steps: int, upscale_method: str) -> io.NodeOutput:
        """The sampler; *scale_steps* -1 means half of the steps."""
        steps = None if scale_steps < 0 else scale_steps
        options = {"total_upscale": scale_ratio, "upscale_steps": steps, "upscale_method": upscale_method}
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_lcm_upscale, extra_options=options))


class SamplerLCM(io.ComfyNode):
    """Makes a latent consistency sampler with settings for its noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def factor(name: str, step: str) -> io.Float.Input:
            tip = f"Factor of the noise after the {step} step; 1.0 is what the model was trained with."
            return io.Float.Input(name, default=1.0, min=0.0, max=64.0, step=0.01, tooltip=tip)

        clip = "Cuts the noise at this many standard deviations; 0 cuts nothing."
        return io.Schema(
            node_id="SamplerLCM",
            category=SAMPLERS,
            description="Latent consistency sampling whose noise can change from step to step.",
            outputs=[io.Sampler.Output()],
            inputs=[
                factor("s_noise", "first"),
                factor("s_noise_end", "last"),
                io.Float.Input("noise_clip_std", default=0.0, min=0.0, max=10.0, step=0.01, tooltip=clip),
            ],
        )

    @classmethod
    def execute(cls, s_noise: float, s_noise_end: float, noise_clip_std: float) -> io.NodeOutput:
        options = {"s_noise": float(s_noise), "s_noise_end": float(s_noise_end), "noise_clip_std": float(noise_clip_std)}
        return io.NodeOutput(comfy.samplers.ksampler("lcm", options))


class SamplerEulerCFGpp(io.ComfyNode):
    """Makes an Euler sampler with CFG++."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SamplerEulerCFGpp",
            display_name="SamplerEulerCFG++",
            category="experimental",
            is_experimental=True,
            inputs=[io.Combo.Input("version", options=["regular", "alternative"], advanced=True)],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, version: str) -> io.NodeOutput:
        if version == "alternative":
            return io.NodeOutput(comfy.samplers.KSAMPLER(sample_euler_pp))
        return io.NodeOutput(comfy.samplers.ksampler("euler_cfg_pp"))


class AdvancedSamplersExtension(ComfyExtension):
    """The extension with these nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SamplerLCMUpscale, SamplerLCM, SamplerEulerCFGpp]


async def comfy_entrypoint() -> AdvancedSamplersExtension:
    """The extension, for the pack loader."""
    return AdvancedSamplersExtension()
