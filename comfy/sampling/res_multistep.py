"""RES: the refined exponential solver in its second-order multistep form, deterministic or ancestral, with or without CFG++.

Zhang et al. 2023, "Improved Order Analysis and Design of Exponential Integrator for Diffusion Models Sampling" (arXiv:2308.02157),
section 3: the weights of two denoised latents keep the second order whatever the widths of the steps. Arguments: see ``solver_run``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.sampling.cfg_pp import UnconditionedRun
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SolverRun, get_ancestral_step, noise_scale, phi_2, to_d, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser


@without_gradients
def res_multistep(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    eta: float = 1.0,
    cfg_pp: bool = False,
) -> Tensor:
    """The solver behind all four names; *eta* 0 adds no noise, *cfg_pp* tells the noise from the unconditioned latent.

    The first step and the one to zero are Euler's. One model call per step.
    """
    kind = UnconditionedRun if cfg_pp else SolverRun
    run = kind(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    s_noise = s_noise * noise_scale(run.patched_sampling())
    before: Tensor | None = None
    down_before: Any = None
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        source = run.unconditioned if isinstance(run, UnconditionedRun) else denoised
        down, fresh = get_ancestral_step(sigma, sigma_next, eta)
        if down == 0 or before is None:
            x = denoised + to_d(x, sigma, source) * down
        else:
            width, back = sigma.log() - down.log(), down_before.log() - sigmas[step - 1].log()
            older = (phi_2(width) * width / back).nan_to_num(nan=0.0)  # no number after a step of no width
            x = down / sigma * (x + denoised - source) + (1 - down / sigma - older) * source + older * before
        if fresh > 0:
            x = x + noise_sampler(sigma, sigma_next) * s_noise * fresh
        before, down_before = source, down
    return x


@without_gradients
def sample_res_multistep(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """The deterministic solver; *s_noise* and *noise_sampler* have no effect."""
    return res_multistep(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta=0.0)


@without_gradients
def sample_res_multistep_cfg_pp(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """The deterministic solver with CFG++; *s_noise* and *noise_sampler* have no effect."""
    return res_multistep(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta=0.0, cfg_pp=True)


@without_gradients
def sample_res_multistep_ancestral(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """The solver with fresh noise after each step."""
    return res_multistep(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta)


@without_gradients
def sample_res_multistep_ancestral_cfg_pp(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """The solver with CFG++ and fresh noise after each step."""
    return res_multistep(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta, cfg_pp=True)
