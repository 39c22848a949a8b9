"""The parts that all solvers share: the loop over noise levels, calls of the model, reports, and small formulas of Karras et al.

Solvers use the "variance exploding" form of Karras et al. 2022 (arXiv:2206.00364): ``x = signal + sigma * noise``, and the
model returns the denoised latent. ``CONST`` models (rectified flow) use ``x = (1 - sigma) * signal + sigma * noise`` instead.

Every solver takes the model, the noisy latent ``x`` (B×C×spatial, float32, on the model's device) at the first of the descending
``sigmas`` (1-D), ``extra_args`` for each call of the model, a ``callback`` that gets a dict with ``x``, ``i``, ``sigma``, ``sigma_hat`` and
``denoised`` once per step, and ``disable`` for the bar on the terminal. It returns the latent at the last sigma, shaped like ``x``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import comfy.sampling.noise
import comfy.utils
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.noise import NoiseSampler
    from comfy.sampling.protocols import Denoiser, ModelSampling, NoiseNames, SolverCallback

torch = lazy_module("torch")
model_sampling_kinds = lazy_module("comfy.model_sampling")

FIRST_STEP_PERCENT = 1e-4  # where flow models start, because the log SNR of pure noise is not finite


def without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """*function* wrapped in ``torch.no_grad()``; torch is imported at the first call."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return function(*args, **kwargs)

    return run


class SolverRun:
    """One solver's walk through *sigmas*: calls the model on whole batches and reports every step."""

    def __init__(
        self,
        model: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None,
        callback: SolverCallback | None,
        disable: bool | None,
    ) -> None:
        self.model = model
        self.sigmas = sigmas
        self.extra_args = {} if extra_args is None else extra_args
        self.callback = callback
        self._silent = disable
        self._ones = x.new_ones([x.shape[0]])

    @property
    def seed(self) -> int | None:
        """The seed of the whole sampling, or None."""
        return self.extra_args.get("seed")

    @property
    def noise_names(self) -> NoiseNames:
        """Where the kinds of noise are looked up: in the module that publishes samplers, whose names node packs replace."""
        return getattr(self.model, "noise_names", None) or comfy.sampling.noise

    def independent_noise(self, x: Tensor, given: NoiseSampler | None) -> NoiseSampler:
        """*given*, or without it noise like *x* that is drawn anew at each call."""
        return given or self.noise_names.default_noise_sampler(x, seed=self.seed)

    def brownian_noise(self, x: Tensor, given: NoiseSampler | None, cpu: bool) -> NoiseSampler:
        """*given*, or without it Brownian noise like *x* over all sigmas; *cpu* draws it there, so that the device does not matter."""
        levels = self.sigmas[self.sigmas > 0]
        return given or self.noise_names.BrownianTreeNoiseSampler(x, levels.min(), self.sigmas.max(), seed=self.seed, cpu=cpu)

    def noise_like(self, x: Tensor) -> Tensor:
        """Noise like *x* from torch's own generator."""
        return self.noise_names.torch.randn_like(x)

    def steps(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each step's number, its sigma and the next sigma, and show a bar on the terminal unless disabled."""
        for step in comfy.utils.model_trange(len(self.sigmas) - 1, disable=self._silent):
            yield step, self.sigmas[step], self.sigmas[step + 1]

    def denoise(self, x: Tensor, sigma: Any) -> Tensor:
        """The model's denoised latent for *x* at *sigma* (a scalar for the whole batch)."""
        return self.model(x, sigma * self._ones, **self.extra_args)

    def report(self, step: int, x: Tensor, denoised: Tensor, sigma: Any, sigma_hat: Any = None) -> None:
        """Call the callback for a step; *sigma_hat* is the level after churning if it differs from *sigma*."""
        if self.callback is not None:
            self.callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma if sigma_hat is None else sigma_hat, "denoised": denoised})

    def denoise_and_report(self, step: int, x: Tensor, sigma: Any, sigma_hat: Any = None) -> Tensor:
        """Make and report the first model call of a step, at *sigma_hat* if it is given."""
        denoised = self.denoise(x, sigma if sigma_hat is None else sigma_hat)
        self.report(step, x, denoised, sigma, sigma_hat)
        return denoised

    def patched_sampling(self) -> ModelSampling:
        """The model's sampling object, with the object patches of this run."""
        return self.model.inner_model.model_patcher.get_model_object("model_sampling")

    def is_flow(self) -> bool:
        """Whether the model is a rectified flow."""
        return isinstance(self.model.inner_model.inner_model.model_sampling, model_sampling_kinds.CONST)


class SnrRun(SolverRun):
    """A run with levels in half log SNR, of which solvers of the reverse SDE and exponential integrators take their steps.

    A flow's first level is moved away from pure noise. Fresh noise comes from *noise_sampler*, by default independent at each call.
    """

    def __init__(
        self,
        model: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None,
        callback: SolverCallback | None,
        disable: bool | None,
        eta: float,
        s_noise: float,
        noise_sampler: NoiseSampler | None,
    ) -> None:
        super().__init__(model, x, sigmas, extra_args, callback, disable)
        self.noise_sampler = noise_sampler or self.own_noise(x)
        self.sampling = self.patched_sampling()
        self.sigmas = offset_first_sigma_for_snr(sigmas, self.sampling)
        self.eta, self.s_noise = eta, s_noise * noise_scale(self.sampling)

    def own_noise(self, x: Tensor) -> NoiseSampler:
        """The kind of noise that is drawn where the caller gave none."""
        return self.independent_noise(x, None)

    def half_log_snr(self, sigma: Tensor) -> Tensor:
        """log(signal / noise) at *sigma*."""
        return sigma_to_half_log_snr(sigma, self.sampling)

    def sigma(self, half_log_snr: Tensor) -> Tensor:
        """The inverse of :meth:`half_log_snr`."""
        return half_log_snr_to_sigma(half_log_snr, self.sampling)

    def is_noisy(self) -> bool:
        """Whether steps add noise at all."""
        return self.eta > 0 and self.s_noise > 0


def append_zero(x: Tensor) -> Tensor:
    """*x* followed by a zero."""
    return torch.cat([x, x.new_zeros(1)])


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The derivative dx/dsigma of the probability flow (Karras et al., eq. 1)."""
    if sigma.ndim:
        sigma = sigma[(...,) + (None,) * (x.ndim - sigma.ndim)]
    return (x - denoised) / sigma


def get_ancestral_step(sigma_from: Any, sigma_to: Any, eta: float = 1.0) -> tuple[Any, Any]:
    """Split a step: the sigma that its deterministic part goes down to, and the sigma of the fresh noise.

    With *eta* 1 the noise is that of DDPM's reverse Markov chain; with 0 there is none.
    """
    if not eta:
        return sigma_to, 0.0
    chain_noise = (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5
    fresh = min(sigma_to, eta * chain_noise)
    return (sigma_to**2 - fresh**2) ** 0.5, fresh


def flow_ancestral_step(sigma_from: Tensor, sigma_to: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Split a step of a rectified flow: the level to step down to, the sigma of the fresh noise, the factor that restores the signal."""
    down = sigma_to * (1 + (sigma_to / sigma_from - 1) * eta)
    signal_factor = (1 - sigma_to) / (1 - down)
    return down, (sigma_to**2 - (down * signal_factor) ** 2) ** 0.5, signal_factor


def sigma_to_half_log_snr(sigma: Tensor, model_sampling: ModelSampling) -> Tensor:
    """log(signal / noise) at *sigma*."""
    return -(sigma.logit() if isinstance(model_sampling, model_sampling_kinds.CONST) else sigma.log())


def half_log_snr_to_sigma(half_log_snr: Tensor, model_sampling: ModelSampling) -> Tensor:
    """The sigma at which log(signal / noise) is *half_log_snr*."""
    return (-half_log_snr).sigmoid() if isinstance(model_sampling, model_sampling_kinds.CONST) else (-half_log_snr).exp()


def offset_first_sigma_for_snr(sigmas: Tensor, model_sampling: ModelSampling, percent_offset: float = FIRST_STEP_PERCENT) -> Tensor:
    """*sigmas*; for a flow model the first level is moved away from pure noise, so that its log SNR is finite."""
    if len(sigmas) < 2 or not isinstance(model_sampling, model_sampling_kinds.CONST) or sigmas[0] < 1:
        return sigmas
    moved = sigmas.clone()
    moved[0] = model_sampling.percent_to_sigma(percent_offset)
    return moved


def phi_2(width: Tensor) -> Tensor:
    """The weight of the slope in an exponential step of *width* > 0: the integral of exp(t - width) * t over the step, divided by it."""
    return (-width).expm1() / width + 1


def noise_scale(model_sampling: ModelSampling) -> float:
    """The factor by which a model scales fresh noise; 1 unless its sampling object has another."""
    return getattr(model_sampling, "noise_scale", 1.0)
