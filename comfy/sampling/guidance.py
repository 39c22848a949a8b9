"""Classifier-free guidance: combines the conditioned and the unconditioned result of the model."""

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
    """Combine *cond_pred* and *uncond_pred* by classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).

    The option ``sampler_cfg_function`` replaces the formula; the functions under ``sampler_post_cfg_function`` then change the result in
    turn. All latents have the shape of *x*; *timestep* holds one sigma per batch entry.
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
