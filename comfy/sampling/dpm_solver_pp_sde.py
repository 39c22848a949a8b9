"""Stochastic multistep DPM-Solver++ of second and third order (arXiv:2211.01095, appendix on SDEs, extended to three steps).

Arguments: see ``solver_run``; *eta* scales the noise of a step as a whole (0: none), *s_noise* the fresh noise alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.sampling.dpm_solver_pp import StochasticRun
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import phi_2, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser


@dataclass(frozen=True, slots=True)
class PastStep:
    """A finished step: the model's denoised latent and the step's width in half log SNR."""

    denoised: Tensor
    width: Tensor


Correction = Callable[["Tensor", "Tensor", "Tensor", list[PastStep]], "Tensor | float"]


def midpoint_correction(denoised: Tensor, width: Tensor, damped: Tensor, past: list[PastStep]) -> Tensor | float:
    """The second-order term from the last step's denoised latent, with the slope taken at the middle of the step."""
    if not past:
        return 0.0
    return -(-damped).expm1() / 2 * (denoised - past[-1].denoised) * (width / past[-1].width)


def heun_correction(denoised: Tensor, width: Tensor, damped: Tensor, past: list[PastStep]) -> Tensor | float:
    """The second-order term with the slope integrated exactly over the step."""
    if not past:
        return 0.0
    return phi_2(damped) * (denoised - past[-1].denoised) * (width / past[-1].width)


def third_order_correction(denoised: Tensor, width: Tensor, damped: Tensor, past: list[PastStep]) -> Tensor | float:
    """The terms of slope and curvature from the denoised latents of the last two steps; after one step the slope alone."""
    if len(past) < 2:
        return heun_correction(denoised, width, damped, past)
    last, before = past[-1], past[-2]
    ratio, ratio_before = last.width / width, before.width / width
    newer = (denoised - last.denoised) / ratio
    older = (last.denoised - before.denoised) / ratio_before
    bend = (newer - older) / (ratio + ratio_before)
    slope_weight = phi_2(damped)
    return slope_weight * (newer + bend * ratio) - (slope_weight / damped - 0.5) * bend


def multistep_sde(run: StochasticRun, x: Tensor, correction: Correction, memory: int) -> Tensor:
    """Walk *run* with first-order steps plus *correction*, which sees the last *memory* steps; returns the last latent."""
    past: list[PastStep] = []
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        here, there = run.half_log_snr(sigma), run.half_log_snr(sigma_next)
        width = there - here
        damped = width * (1 + run.eta)
        target = -(-damped).expm1() * denoised + correction(denoised, width, damped, past)
        x = sigma_next / sigma * (-width * run.eta).exp() * x + sigma_next * there.exp() * target
        if run.is_noisy():
            x = x + run.noise_sampler(sigma, sigma_next) * sigma_next * (-(-2 * width * run.eta).expm1()).sqrt() * run.s_noise
        past = [*past, PastStep(denoised, width)][-memory:]
    return x


def _run_2m(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None,
    callback: Callable | None,
    disable: bool | None,
    eta: float,
    s_noise: float,
    noise_sampler: NoiseSampler | None,
    solver_type: str,
    cpu_noise: bool,
) -> Tensor:
    if len(sigmas) < 2:
        return x
    corrections = {"midpoint": midpoint_correction, "heun": heun_correction}
    if solver_type not in corrections:
        raise ValueError(f"unknown solver_type {solver_type!r}; known: {', '.join(corrections)}")
    run = StochasticRun(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, cpu_noise)
    return multistep_sde(run, x, corrections[solver_type], memory=1)


def _run_3m(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None,
    callback: Callable | None,
    disable: bool | None,
    eta: float,
    s_noise: float,
    noise_sampler: NoiseSampler | None,
    cpu_noise: bool,
) -> Tensor:
    if len(sigmas) < 2:
        return x
    run = StochasticRun(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, cpu_noise)
    return multistep_sde(run, x, third_order_correction, memory=2)


@without_gradients
def sample_dpmpp_2m_sde(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "midpoint",
) -> Tensor:
    """Second order; *solver_type* is ``midpoint`` or ``heun``. Raises ``ValueError`` for any other."""
    return _run_2m(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type, cpu_noise=True)


@without_gradients
def sample_dpmpp_2m_sde_gpu(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "midpoint",
) -> Tensor:
    """:func:`sample_dpmpp_2m_sde` with noise drawn on the latent's device."""
    return _run_2m(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type, cpu_noise=False)


@without_gradients
def sample_dpmpp_2m_sde_heun(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "heun",
) -> Tensor:
    """:func:`sample_dpmpp_2m_sde` with the ``heun`` solver."""
    return _run_2m(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type, cpu_noise=True)


@without_gradients
def sample_dpmpp_2m_sde_heun_gpu(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "heun",
) -> Tensor:
    """:func:`sample_dpmpp_2m_sde_heun` with noise drawn on the latent's device."""
    return _run_2m(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type, cpu_noise=False)


@without_gradients
def sample_dpmpp_3m_sde(
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
    """Third order, with noise drawn on the CPU."""
    return _run_3m(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, cpu_noise=True)


@without_gradients
def sample_dpmpp_3m_sde_gpu(
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
    """:func:`sample_dpmpp_3m_sde` with noise drawn on the latent's device."""
    return _run_3m(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, cpu_noise=False)
