"""Euler's and Heun's methods and DPM-Solver-2 over sigma: deterministic with optional churn, and ancestral. Arguments: see ``solver_run``.

Karras et al. 2022 (arXiv:2206.00364), algorithm 2; Lu et al. 2022 (arXiv:2206.00927) for the log-midpoint of ``dpm_2``. Churn raises the
level of each step by the share *s_churn* / steps at sigmas from *s_tmin* to *s_tmax*, with noise scaled by *s_noise*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SolverRun, flow_ancestral_step, get_ancestral_step, noise_scale, to_d, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser


MOST_CHURN = 2**0.5 - 1


def churn(run: SolverRun, x: Tensor, sigma: Tensor, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float) -> tuple[Tensor, Tensor]:
    """Raise the noise level before a step; returns the latent and its new sigma (Karras et al., algorithm 2, lines 4 to 6)."""
    if s_churn <= 0 or not s_tmin <= sigma <= s_tmax:
        return x, sigma
    raised = sigma * (1 + min(s_churn / (len(run.sigmas) - 1), MOST_CHURN))
    return x + run.noise_like(x) * s_noise * (raised**2 - sigma**2) ** 0.5, raised


def log_midpoint(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The geometric mean of two sigmas."""
    return sigma.log().lerp(sigma_next.log(), 0.5).exp()


@without_gradients
def sample_euler(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler's method: first order, one model call per step."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    for step, sigma, sigma_next in run.steps():
        x, level = churn(run, x, sigma, s_churn, s_tmin, s_tmax, s_noise)
        denoised = run.denoise_and_report(step, x, sigma, level)
        x = x + to_d(x, level, denoised) * (sigma_next - level)
    return x


@without_gradients
def sample_heun(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's method: second order, by the mean of the slopes at both ends. Two model calls per step, one in the last."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    for step, sigma, sigma_next in run.steps():
        x, level = churn(run, x, sigma, s_churn, s_tmin, s_tmax, s_noise)
        slope = to_d(x, level, run.denoise_and_report(step, x, sigma, level))
        distance = sigma_next - level
        if sigma_next > 0:
            guess = x + slope * distance
            slope = (slope + to_d(guess, sigma_next, run.denoise(guess, sigma_next))) / 2
        x = x + slope * distance
    return x


@without_gradients
def sample_heunpp2(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun++: looks up to two steps ahead and weighs the slopes there by their sigma (Carzit, sd-webui-samplers-scheduler).

    The slope at a level ahead counts as much as its share of the first sigma, divided by the number of slopes; the slope of the step
    itself takes the rest. So early steps are nearly Heun's and late ones nearly Euler's. Up to three model calls per step.
    """
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    for step, sigma, sigma_next in run.steps():
        x, level = churn(run, x, sigma, s_churn, s_tmin, s_tmax, s_noise)
        slope = to_d(x, level, run.denoise_and_report(step, x, sigma, level))
        ahead = [later for later in sigmas[step + 1 : step + 3] if sigma_next != sigmas[-1] and later != sigmas[-1]]
        mixed, place, here, last_slope = slope, x, level, slope
        for later in ahead:
            place = place + last_slope * (later - here)
            here, last_slope = later, to_d(place, later, run.denoise(place, later))
            mixed = mixed + (last_slope - slope) * later / ((len(ahead) + 1) * sigmas[0])
        x = x + mixed * (sigma_next - level)
    return x


@without_gradients
def sample_dpm_2(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-2: second order, by the slope at the log-midpoint. Two model calls per step, one in the last."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    for step, sigma, sigma_next in run.steps():
        x, level = churn(run, x, sigma, s_churn, s_tmin, s_tmax, s_noise)
        denoised = run.denoise_and_report(step, x, sigma, level)
        x = _midpoint_step(run, x, level, sigma_next, denoised)
    return x


def _midpoint_step(run: SolverRun, x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor) -> Tensor:
    """Step from *sigma* to *sigma_next* along the slope at their log-midpoint; *denoised* is the model's result at *sigma*."""
    slope = to_d(x, sigma, denoised)
    if sigma_next > 0:
        middle = log_midpoint(sigma, sigma_next)
        halfway = x + slope * (middle - sigma)
        slope = to_d(halfway, middle, run.denoise(halfway, middle))
    return x + slope * (sigma_next - sigma)


class AncestralStep:
    """The two parts of one ancestral step: a deterministic one down to the sigma ``down``, and the noise that :meth:`renoise` adds.

    For a flow model the signal is scaled as well.
    """

    def __init__(self, run: SolverRun, sigma: Tensor, sigma_next: Tensor, eta: float, s_noise: float) -> None:
        self._signal_factor: Any = 1.0
        if run.is_flow():
            self.down, fresh, self._signal_factor = flow_ancestral_step(sigma, sigma_next, eta)
            s_noise = s_noise * noise_scale(run.patched_sampling())
        else:
            self.down, fresh = get_ancestral_step(sigma, sigma_next, eta=eta)
        self._levels = sigma, sigma_next
        self._is_noisy = bool(sigma_next > 0) and (eta > 0 or not run.is_flow())
        self._fresh, self._s_noise = fresh, s_noise

    def renoise(self, x: Tensor, noise_sampler: NoiseSampler) -> Tensor:
        """*x* with the step's fresh noise; *x* itself at the last step."""
        if not self._is_noisy:
            return x
        return self._signal_factor * x + noise_sampler(*self._levels) * self._s_noise * self._fresh


@without_gradients
def sample_euler_ancestral(
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
    """Euler's method with fresh noise after each step; *eta* 1 adds as much as DDPM's chain, 0 none."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        split = AncestralStep(run, sigma, sigma_next, eta, s_noise)
        if split.down == 0:
            x = denoised
        else:
            x = split.renoise(x + to_d(x, sigma, denoised) * (split.down - sigma), noise_sampler)
    return x


@without_gradients
def sample_dpm_2_ancestral(
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
    """DPM-Solver-2 with fresh noise after each step; *eta* 1 adds as much as DDPM's chain, 0 none."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        split = AncestralStep(run, sigma, sigma_next, eta, s_noise)
        x = _midpoint_step(run, x, sigma, split.down, denoised)
        if split.down > 0:
            x = split.renoise(x, noise_sampler)
    return x
