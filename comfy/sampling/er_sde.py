"""ER-SDE: solvers of the extended reverse-time SDE, whose share of noise at each level is a free function.

Cui et al. 2023, "Elucidating the Solution Space of Extended Reverse-Time SDE for Diffusion Models" (arXiv:2309.06169). Levels are ratios
of noise to signal. A noise scaler maps a level to a number; the less a step reduces that number, the more of the old latent stays, and
what variance is missing then is filled up with fresh noise. Arguments: see ``solver_run``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.noise import NoiseSampler
from comfy.sampling.solver_run import SnrRun, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

torch = lazy_module("torch")

INTEGRATION_POINTS = 200  # as in the authors' code
NoiseScaler = Callable[["Tensor"], "Tensor"]


def scale_of_er_sde(level: Tensor, eta: float = 1.0) -> Tensor:
    """The noise scaler that the paper found best (its ER SDE 5), with the noise scaled by *eta* (0: the ODE)."""
    return level * ((level**0.3).exp() + 10.0) ** eta


def scale_of_reverse_sde(level: Tensor, eta: float = 1.0) -> Tensor:
    """The noise scaler of the usual reverse SDE, with the noise scaled by *eta* (0: the ODE)."""
    return level ** (eta + 1)


def scale_of_ode(level: Tensor) -> Tensor:
    """The noise scaler of the ODE, which leaves no variance to fill up."""
    return level


class ErStep:
    """The weights of one step from *level* to *level_next* (ratios of noise to signal) with *scaler*."""

    def __init__(self, level: Tensor, level_next: Tensor, scaler: NoiseScaler) -> None:
        self._level, self._level_next, self._scaler = level, level_next, scaler
        self.kept = scaler(level_next) / scaler(level)

    def fresh(self) -> Tensor:
        """The deviation of the noise that fills the variance up."""
        return (self._level_next**2 - (self._level * self.kept) ** 2).sqrt().nan_to_num(nan=0.0)

    def weights(self) -> tuple[Tensor, Tensor]:
        """The weights of the picture's first and second derivative after the level, by the rectangle rule."""
        change = self._level_next - self._level
        width = -change / INTEGRATION_POINTS
        points = self._level_next + width * torch.arange(INTEGRATION_POINTS, dtype=torch.float32, device=width.device)
        density = width * self._scaler(self._level_next) / self._scaler(points)
        return change + density.sum(), change**2 / 2 + (density * (points - self._level)).sum()


@without_gradients
def sample_er_sde(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    noise_scaler: NoiseScaler | None = None,
    max_stage: int = 3,
) -> Tensor:
    """ER-SDE-Solver of order *max_stage* (1 to 3) over the last denoised latents: one model call per step.

    *noise_scaler* (default: :func:`scale_of_er_sde`) maps levels, a tensor of any shape, to numbers.
    """
    run = SnrRun(model, x, sigmas, extra_args, callback, disable, 1.0, s_noise, noise_sampler)
    scaler = noise_scaler or scale_of_er_sde
    levels = (-run.half_log_snr(run.sigmas)).exp()
    before: Tensor | None = None
    slope_before: Tensor | None = None
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        level, level_next = levels[step], levels[step + 1]
        signal, signal_next = sigma / level, sigma_next / level_next
        part = ErStep(level, level_next, scaler)
        moved = part.kept * x / signal + (1 - part.kept) * denoised
        if max_stage >= 2 and before is not None:
            first_weight, second_weight = part.weights()
            slope = (denoised - before) / (level - levels[step - 1])
            moved = moved + first_weight * slope
            if max_stage >= 3 and slope_before is not None:
                moved = moved + second_weight * (slope - slope_before) / ((level - levels[step - 2]) / 2)
            slope_before = slope
        if run.is_noisy():
            moved = moved + run.noise_sampler(sigma, sigma_next) * run.s_noise * part.fresh()
        x, before = signal_next * moved, denoised
    return x
