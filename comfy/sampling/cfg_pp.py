"""CFG++: the latent moves towards the guided picture, but the noise in it is told from the unconditioned one.

Chung et al. 2024, "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models" (arXiv:2406.08070), algorithm 2: where a
solver takes its noise estimate from the guided denoised latent, these take it from the unconditioned one. Arguments: see ``solver_run``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.patching.model_options import set_model_options_post_cfg_function
from comfy.sampling.dpm_solver_pp import towards
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SolverRun, get_ancestral_step, noise_scale, sigma_to_half_log_snr, to_d, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser


class UnconditionedRun(SolverRun):
    """A run that also keeps the unconditioned denoised latent of the last model call.

    It listens behind guidance (``sampler_post_cfg_function``) and asks for the unconditioned side at a scale of 1, too. The caller's
    ``extra_args`` stay as they are.
    """

    def __init__(
        self, model: Denoiser, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any] | None, callback: Callable | None, disable: bool | None
    ) -> None:
        super().__init__(model, x, sigmas, extra_args, callback, disable)
        self._unconditioned: Tensor | None = None
        options = self.extra_args.get("model_options", {}).copy()
        options = set_model_options_post_cfg_function(options, self._keep, disable_cfg1_optimization=True)
        self.extra_args = {**self.extra_args, "model_options": options}

    def _keep(self, arguments: dict[str, Any]) -> Tensor:
        self._unconditioned = arguments["uncond_denoised"]
        return arguments["denoised"]

    @property
    def unconditioned(self) -> Tensor:
        """The unconditioned denoised latent of the last call. Raises ``ValueError`` if the guider reported none."""
        if self._unconditioned is None:
            raise ValueError(
                "CFG++ samplers need a guider that calls the functions set with set_model_sampler_post_cfg_function; "
                "this one did not. Use CFGGuider, or a sampler without cfg_pp in its name"
            )
        return self._unconditioned


@without_gradients
def sample_euler_ancestral_cfg_pp(
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
    """Euler's method with CFG++ and fresh noise after each step; *eta* 1 adds as much as DDPM's chain, 0 none.

    Each step splits in units of the signal, so that flows, whose signal grows, step like other models.
    """
    run = UnconditionedRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    sampling = run.patched_sampling()
    s_noise = s_noise * noise_scale(sampling)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        signal, signal_next = (level * sigma_to_half_log_snr(level, sampling).exp() for level in (sigma, sigma_next))
        noise = to_d(x, sigma, signal * run.unconditioned)
        down, fresh = get_ancestral_step(sigma / signal, sigma_next / signal_next, eta)
        x = signal_next * (denoised + down * noise)
        if eta > 0 and s_noise > 0:
            x = x + noise_sampler(sigma, sigma_next) * (signal_next * s_noise * fresh)
    return x


@without_gradients
def sample_euler_cfg_pp(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
) -> Tensor:
    """Euler's method with CFG++, which for a scale of 1 is Euler's method: one model call per step."""
    return sample_euler_ancestral_cfg_pp(model, x, sigmas, extra_args, callback, disable, eta=0.0, s_noise=0.0)


@without_gradients
def sample_euler_pp(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
) -> Tensor:
    """Euler's method along a slope with the guided latent counted twice and the unconditioned one taken off (SamplerEulerCFG++)."""
    run = UnconditionedRun(model, x, sigmas, extra_args, callback, disable)
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        x = x + to_d(x, sigma, 2 * denoised - run.unconditioned) * (sigma_next - sigma)
    return x


@without_gradients
def sample_dpmpp_2s_ancestral_cfg_pp(
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
    """DPM-Solver++ (2S) with CFG++ and fresh noise after each step. Two model calls per step, one in the last.

    Like ComfyUI's, the whole step corrects the latent by the unconditioned side of the call at its middle.
    """
    run = UnconditionedRun(model, x, sigmas, extra_args, callback, disable)
    noise_sampler = run.independent_noise(x, noise_sampler)
    s_noise = s_noise * noise_scale(run.patched_sampling())
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        down, fresh = get_ancestral_step(sigma, sigma_next, eta)
        if down == 0:
            x = denoised
        else:
            middle = (sigma * down) ** 0.5
            halfway = towards(x + denoised - run.unconditioned, denoised, middle / sigma)
            ahead = run.denoise(halfway, middle)
            x = towards(x + denoised - run.unconditioned, ahead, down / sigma)
        if sigma_next > 0:
            x = x + noise_sampler(sigma, sigma_next) * s_noise * fresh
    return x


@without_gradients
def sample_dpmpp_2m_cfg_pp(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++ (2M) with CFG++: extrapolates from the unconditioned latent of the step before. One model call per step."""
    run = UnconditionedRun(model, x, sigmas, extra_args, callback, disable)
    before: Tensor | None = None
    width_before: Tensor | None = None
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        width = sigma.log() - sigma_next.log()
        kept = sigma_next / sigma
        x = denoised + kept * (x - run.unconditioned)
        if before is not None and width_before is not None and sigma_next > 0:
            x = x + (1 - kept) * width / (2 * width_before) * (denoised - before)
        before, width_before = run.unconditioned, width
    return x
