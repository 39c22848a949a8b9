"""Exponential Runge-Kutta solvers of the reverse SDE with two or three stages per step: SEEDS and the exponential Heun method.

Gonzalez et al. 2023, "SEEDS: Exponential SDE Solvers for Fast High-Quality Sampling from Diffusion Models" (arXiv:2305.14267), with the
model as a predictor of data. The stages share one path of noise: each extends the path of the stage before. Arguments: see
``solver_run``; *eta* scales the noise of a step as a whole (0: the solver of the ODE), *s_noise* the fresh noise alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SnrRun, phi_2, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

torch = lazy_module("torch")

SOLVER_TYPES = ("phi_1", "phi_2")


class StagedStep:
    """One step from *sigma* to *sigma_next*; a place in it is a share (0 to 1) of its width in half log SNR.

    *x* and *denoised* are the latent and the model's picture at the start. Stages must be asked for in ascending order.
    """

    def __init__(self, run: SnrRun, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> None:
        self._run, self._x, self._denoised = run, x, denoised
        self._sigma, self._sigma_next = sigma, sigma_next
        self._here, self._there = run.half_log_snr(sigma), run.half_log_snr(sigma_next)
        self._width = self._there - self._here
        self._reached, self._level = 0.0, sigma
        self._path: Any = 0.0  # the noise of the steps so far, as a share of what the level has

    def damped(self, place: float) -> Tensor:
        """The width up to *place* as the drift of the SDE sees it."""
        return place * self._width * (1 + self._run.eta)

    def picture_at(self, place: float, change: Any = 0.0) -> tuple[Tensor, Tensor]:
        """Step to *place* with *change* (shaped like the latent) added to the first-order picture; returns latent and sigma there."""
        run, damped = self._run, self.damped(place)
        if place == 1.0:
            level, half_log_snr = self._sigma_next, self._there
        else:
            half_log_snr = torch.lerp(self._here, self._there, place)
            level = run.sigma(half_log_snr)
        drift = level / self._sigma * (-place * self._width * run.eta).exp() * self._x
        latent = drift + level * half_log_snr.exp() * (change - (-damped).expm1() * self._denoised)
        if run.is_noisy():
            latent = latent + self._noise_up_to(place, level) * level * run.s_noise
        return latent, level

    def _noise_up_to(self, place: float, level: Tensor) -> Tensor:
        decay = (self._reached - place) * self._width * self._run.eta
        fresh = (-(2 * decay).expm1()).sqrt()
        self._path = self._path * decay.exp() + fresh * self._run.noise_sampler(self._level, level)
        self._reached, self._level = place, level
        return self._path

    def towards(self, other: Tensor, weight: Any) -> Tensor:
        """The change that gives the model's picture *other* the *weight* and takes it from the first picture."""
        return weight * (other - self._denoised)

    def denoise(self, place: float, change: Any = 0.0) -> Tensor:
        """The model's picture of the latent that :meth:`picture_at` gives."""
        return self._run.denoise(*self.picture_at(place, change))


@without_gradients
def sample_seeds_2(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r: float = 0.5,
    solver_type: str = "phi_1",
) -> Tensor:
    """SEEDS-2: two model calls per step, one in the last; *r* (over 0, up to 1) is the place of the second.

    *solver_type* ``phi_1`` takes the slope at the middle of the step, ``phi_2`` integrates it exactly. Raises ``ValueError`` for any other.
    """
    if solver_type not in SOLVER_TYPES:
        raise ValueError(f"unknown solver_type {solver_type!r}; known: {', '.join(SOLVER_TYPES)}")
    run = SnrRun(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler)
    for number, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(number, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        step = StagedStep(run, x, denoised, sigma, sigma_next)
        second = step.denoise(r)
        damped = step.damped(1.0)
        weight = phi_2(damped) / r if solver_type == "phi_2" else -(-damped).expm1() / (2 * r)
        x, _ = step.picture_at(1.0, step.towards(second, weight))
    return x


@without_gradients
def sample_seeds_3(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r_1: float = 1 / 3,
    r_2: float = 2 / 3,
) -> Tensor:
    """SEEDS-3: three model calls per step, one in the last; *r_1* < *r_2* are the places of the second and third."""
    run = SnrRun(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler)
    for number, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(number, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        step = StagedStep(run, x, denoised, sigma, sigma_next)
        second = step.denoise(r_1)
        third = step.denoise(r_2, step.towards(second, r_2 / r_1 * phi_2(step.damped(r_2))))
        x, _ = step.picture_at(1.0, step.towards(third, phi_2(step.damped(1.0)) / r_2))
    return x


@without_gradients
def sample_exp_heun_2_x0(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    solver_type: str = "phi_2",
) -> Tensor:
    """The exponential Heun method without noise: :func:`sample_seeds_2` with its second call at the end of the step."""
    return sample_seeds_2(model, x, sigmas, extra_args, callback, disable, 0.0, 0.0, None, 1.0, solver_type)


@without_gradients
def sample_exp_heun_2_x0_sde(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: str = "phi_2",
) -> Tensor:
    """:func:`sample_exp_heun_2_x0` with noise."""
    return sample_seeds_2(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, 1.0, solver_type)
