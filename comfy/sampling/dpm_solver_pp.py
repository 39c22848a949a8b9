"""DPM-Solver++ in its deterministic, ancestral and stochastic forms (Lu et al. 2022, arXiv:2211.01095). Arguments: see ``solver_run``.

The solver works in half log SNR, called ``lambda``. A step of width ``h`` multiplies the latent by ``exp(-h)`` (in units of the
noise) and moves it towards the model's denoised latent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.euler import AncestralStep
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SnrRun, SolverRun, get_ancestral_step, to_d, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

torch = lazy_module("torch")

NEARLY_PURE_NOISE = 0.9999  # replaces the midpoint of a flow's first step, which is not finite


@without_gradients
def sample_dpmpp_2m(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
) -> Tensor:
    """Second-order multistep solver: extrapolates from the denoised latents of the last two steps (algorithm 2 of the paper)."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    before: Tensor | None = None
    width_before: Tensor | None = None
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        width = sigma.log() - sigma_next.log()
        target = denoised
        if before is not None and width_before is not None and sigma_next > 0:
            share = width / (2 * width_before)
            target = (1 + share) * denoised - share * before
        x = sigma_next / sigma * x - (-width).expm1() * target
        before, width_before = denoised, width
    return x


@without_gradients
def sample_dpmpp_2s_ancestral(
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
    """Second-order singlestep solver (midpoint in lambda, algorithm 1) that adds fresh noise after each step."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        split = AncestralStep(run, sigma, sigma_next, eta, s_noise)
        if split.down == 0:
            x = x + to_d(x, sigma, denoised) * (split.down - sigma)
        else:
            middle = _flow_midpoint(sigma, split.down) if run.is_flow() else (sigma * split.down) ** 0.5
            halfway = towards(x, denoised, middle / sigma)
            x = towards(x, run.denoise(halfway, middle), split.down / sigma)
        x = split.renoise(x, noise_sampler)
    return x


def towards(x: Tensor, denoised: Tensor, kept: Any) -> Tensor:
    """A first-order step that keeps the share *kept* of the distance between *x* and *denoised*."""
    return kept * x + (1 - kept) * denoised


def _flow_midpoint(sigma: Tensor, sigma_next: Tensor) -> Any:
    if sigma == 1.0:
        return NEARLY_PURE_NOISE
    return ((sigma.logit() + sigma_next.logit()) / 2).sigmoid()


class StochasticRun(SnrRun):
    """A run over the reverse SDE with Brownian noise between its levels.

    With *cpu_noise* the noise is drawn on the CPU, so that the picture does not depend on the device.
    """

    def __init__(
        self,
        model: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None,
        callback: Callable | None,
        disable: bool | None,
        eta: float,
        s_noise: float,
        noise_sampler: NoiseSampler | None,
        cpu_noise: bool = True,
    ) -> None:
        self._cpu_noise = cpu_noise
        super().__init__(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler)

    def own_noise(self, x: Tensor) -> NoiseSampler:
        """Brownian noise over all levels."""
        return self.brownian_noise(x, None, self._cpu_noise)


@without_gradients
def sample_dpmpp_sde(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r: float = 1 / 2,
) -> Tensor:
    """Singlestep solver that also adds noise inside the step; *r* (0 to 1) is the place of the second model call in the step."""
    return _singlestep_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, r, cpu_noise=True)


@without_gradients
def sample_dpmpp_sde_gpu(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r: float = 1 / 2,
) -> Tensor:
    """:func:`sample_dpmpp_sde` with noise drawn on the latent's device."""
    return _singlestep_sde(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, r, cpu_noise=False)


def _singlestep_sde(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None,
    callback: Callable | None,
    disable: bool | None,
    eta: float,
    s_noise: float,
    noise_sampler: NoiseSampler | None,
    r: float,
    cpu_noise: bool,
) -> Tensor:
    if len(sigmas) < 2:
        return x
    run = StochasticRun(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, cpu_noise)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        here, there = run.half_log_snr(sigma), run.half_log_snr(sigma_next)
        between = here + r * (there - here)
        middle = run.sigma(between)
        halfway = _sde_step(run, x, denoised, (sigma, here), (middle, between))
        weight = 1 / (2 * r)
        target = (1 - weight) * denoised + weight * run.denoise(halfway, middle)
        x = _sde_step(run, x, target, (sigma, here), (sigma_next, there))
    return x


def _sde_step(run: StochasticRun, x: Tensor, target: Tensor, start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> Tensor:
    """One first-order step of the SDE; *start* and *end* are (sigma, half log SNR)."""
    (sigma, here), (sigma_next, there) = start, end
    signal, signal_next = sigma * here.exp(), sigma_next * there.exp()
    down, fresh = get_ancestral_step((-here).exp(), (-there).exp(), run.eta)
    width = -down.log() - here
    x = signal_next / signal * (-width).exp() * x - signal_next * (-width).expm1() * target
    if run.is_noisy():
        x = x + signal_next * run.noise_sampler(sigma, sigma_next) * run.s_noise * fresh
    return x
