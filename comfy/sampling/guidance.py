"""Classifier-free guidance: one picture from the conditioned and the unconditioned one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Options, SampledModel


def cfg_function(
    model: SampledModel,
    cond_pred: Tensor,
    uncond_pred: Tensor,
    cond_scale: float,
    x: Tensor,
    timestep: Tensor,
    model_options: Options | None = None,
    cond: Any = None,
    uncond: Any = None,
) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598), or what ``sampler_cfg_function`` does instead.

    The post-cfg functions then change the result one after the other.
    """
    options = {} if model_options is None else model_options
    common = {
        "cond_scale": cond_scale,
        "input": x,
        "sigma": timestep,
        "cond_denoised": cond_pred,
        "uncond_denoised": uncond_pred,
        "model": model,
        "model_options": options,
    }
    if "sampler_cfg_function" in options:
        replaced = options["sampler_cfg_function"](
            {**common, "cond": x - cond_pred, "uncond": x - uncond_pred, "timestep": timestep, "input_cond": cond, "input_uncond": uncond}
        )
        result = x - replaced
    else:
        result = uncond_pred + (cond_pred - uncond_pred) * cond_scale
    for function in options.get("sampler_post_cfg_function", ()):
        result = function({**common, "denoised": result, "cond": cond, "uncond": uncond})
    return result
