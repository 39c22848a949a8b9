"""Samplers whose steps need only the last latent: DDPM's Markov chain and latent consistency sampling. Arguments: see ``solver_run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SolverRun, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser


StepFunction = Callable[["Tensor", "Tensor", "Tensor", "Tensor", NoiseSampler], "Tensor"]


def DDPMSampler_step(x: Tensor, sigma: Tensor, sigma_prev: Tensor, noise: Tensor, noise_sampler: NoiseSampler) -> Tensor:  # noqa: N802
    """One step of the reverse chain (Ho et al. 2020, arXiv:2006.11239, algorithm 2) for a latent of unit variance.

    *noise* is the model's noise estimate; the result has unit variance at *sigma_prev*.
    """
    alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_prev**2)
    alpha = alpha_bar / alpha_bar_next
    mean = (x - (1 - alpha) / (1 - alpha_bar).sqrt() * noise) / alpha.sqrt()
    if sigma_prev > 0:
        mean = mean + ((1 - alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)).sqrt() * noise_sampler(sigma, sigma_prev)
    return mean


@without_gradients
def generic_step_sampler(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
    step_function: StepFunction = DDPMSampler_step,
) -> Tensor:
    """Walk the chain that *step_function* defines on latents of unit variance."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    for step, sigma, sigma_next in run.steps():
        noise = (x - run.denoise_and_report(step, x, sigma)) / sigma
        x = step_function(x / (1 + sigma**2).sqrt(), sigma, sigma_next, noise, noise_sampler)
        if sigma_next != 0:
            x = x * (1 + sigma_next**2).sqrt()
    return x


@without_gradients
def sample_ddpm(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Walk DDPM's chain over *sigmas*."""
    return generic_step_sampler(model, x, sigmas, extra_args, callback, disable, noise_sampler, DDPMSampler_step)


@without_gradients
def sample_lcm(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
    s_noise: float = 1.0,
    s_noise_end: float | None = None,
    noise_clip_std: float = 0.0,
) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023, arXiv:2310.04378): denoise fully, then add fresh noise of the next level.

    The noise's factor goes linearly from *s_noise* to *s_noise_end*; *noise_clip_std* clips it at that many deviations (0: no clipping).
    """
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    sampling = run.patched_sampling()
    last_factor = s_noise if s_noise_end is None else s_noise_end
    for step, sigma, sigma_next in run.steps():
        x = run.denoise_and_report(step, x, sigma)
        if sigma_next > 0:
            noise = noise_sampler(sigma, sigma_next)
            if noise_clip_std > 0:
                limit = noise_clip_std * noise.std()
                noise = noise.clamp(min=-limit, max=limit)
            factor = s_noise + (last_factor - s_noise) * step / max(len(sigmas) - 2, 1)
            x = sampling.noise_scaling(sigma_next, noise * factor, x)
    return x
