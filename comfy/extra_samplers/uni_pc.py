"""UniPC: a multistep predictor whose every model call also corrects the step before (Zhao et al. 2023, arXiv:2302.04867).

This is the B(h) form for a model that predicts the picture. Times are sigmas; the latent has unit variance inside (``alpha * picture
+ std * noise`` with ``alpha = 1 / sqrt(1 + sigma**2)``). Only the coefficients depend on the order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.solver_run import SolverRun, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

torch = lazy_module("torch")

LAST_SIGMA = 0.001  # stands for zero, whose log SNR is not finite
HIGHEST_ORDER = 3
VARIANTS = ("bh1", "bh2")


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level: signal factor, noise deviation and half log SNR (scalars)."""

    alpha: Tensor
    std: Tensor
    half_log_snr: Tensor

    @classmethod
    def at(cls, sigma: Tensor) -> Level:
        """The level of *sigma*."""
        log_alpha = 0.5 * torch.log(1 / (sigma * sigma + 1))
        variance = 1.0 - torch.exp(2.0 * log_alpha)
        return cls(torch.exp(log_alpha), torch.sqrt(variance), log_alpha - 0.5 * torch.log(variance))


@dataclass(frozen=True, slots=True)
class Known:
    """A level whose picture the model was asked for."""

    level: Level
    picture: Tensor


class Step:
    """One step from the newest of *known* (newest last) to *level* with the coefficients of *order*."""

    def __init__(self, known: list[Known], level: Level, order: int, variant: str) -> None:
        start = known[-1]
        width = level.half_log_snr - start.level.half_log_snr
        earlier = known[-2 : -order - 1 : -1]
        ratios = [(item.level.half_log_snr - start.level.half_log_snr) / width for item in earlier]
        self.order, self.level, self.start = order, level, start
        self.differences = [(item.picture - start.picture) / ratio for item, ratio in zip(earlier, ratios)]
        self.phi_1 = torch.expm1(-width)
        self.scale = -width if variant == "bh1" else self.phi_1
        self._nodes = torch.stack([*ratios, torch.ones_like(width)])
        self._right_side = self._moments(-width)

    def _moments(self, signed_width: Tensor) -> Tensor:
        """The right-hand sides that make the step exact for polynomials up to the order (the paper's theorem 3.1)."""
        phi, factorial, moments = self.phi_1 / signed_width - 1, 1, []
        for degree in range(1, self.order + 1):
            moments.append(phi * factorial / self.scale)
            factorial *= degree + 1
            phi = phi / signed_width - 1 / factorial
        return torch.stack(moments)

    def _weights(self, count: int) -> Tensor:
        rows = torch.stack([self._nodes[:count] ** power for power in range(count)])
        return torch.linalg.solve(rows, self._right_side[:count])

    def _combine(self, x: Tensor, weighted: Any) -> Tensor:
        first_order = self.level.std / self.start.level.std * x - self.level.alpha * self.phi_1 * self.start.picture
        return first_order - self.level.alpha * self.scale * weighted

    def predict(self, x: Tensor) -> Tensor:
        """The latent at the new level from what is known."""
        if not self.differences:
            return self._combine(x, 0)
        weights = [0.5] if self.order == 2 else self._weights(self.order - 1)
        return self._combine(x, sum(weight * difference for weight, difference in zip(weights, self.differences)))

    def correct(self, x: Tensor, picture: Tensor) -> Tensor:
        """The latent at the new level once the model's *picture* there is known; *x* is the latent the step started from."""
        weights = [0.5] if self.order == 1 else self._weights(self.order)
        differences = [*self.differences, picture - self.start.picture]
        return self._combine(x, sum(weight * difference for weight, difference in zip(weights, differences)))


@without_gradients
def sample_unipc(
    model: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = False,
    variant: str = "bh1",
) -> Tensor:
    """Order 3 (less with few steps); *variant* is ``bh1`` or ``bh2``. Raises ``ValueError`` for another.

    The last model call's picture finishes the sampling with a step that is not corrected. Of *sigmas*, a last one of zero becomes
    :data:`LAST_SIGMA`, as in ComfyUI: what it stops at is where a flow's latent is taken from.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown UniPC variant {variant!r}; known: {', '.join(VARIANTS)}")
    if len(sigmas) < 2:
        return noise
    if sigmas[-1] == 0:
        sigmas[-1] = LAST_SIGMA
    levels = [Level.at(sigma) for sigma in sigmas]
    run = SolverRun(model, noise, sigmas, extra_args, callback, disable)
    steps = len(sigmas) - 1
    highest = max(1, min(HIGHEST_ORDER, steps - 1))
    known: list[Known] = []
    x = noise * levels[0].alpha
    for number, sigma, _ in run.steps():
        start, level = x, levels[number]
        if known:
            step = Step(known, level, min(highest, number, steps + 1 - number), variant)
            x = step.predict(start)
        picture = run.denoise(x / level.alpha, sigma)
        if known:
            x = step.correct(start, picture)
        known = [*known, Known(level, picture)][-highest:]
        if number == steps - 1:
            x = Step(known, levels[-1], 1, variant).predict(x)
        if callback is not None:
            callback({"x": x, "i": number, "denoised": picture})
    return x / levels[-1].alpha


@without_gradients
def sample_unipc_bh2(
    model: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = False,
) -> Tensor:
    """:func:`sample_unipc` with the ``bh2`` coefficients."""
    return sample_unipc(model, noise, sigmas, extra_args, callback, disable, variant="bh2")
