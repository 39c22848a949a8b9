"""DEIS: multistep integration of the slopes dx/dsigma as polynomials of the time of a variance preserving diffusion.

Zhang and Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator" (arXiv:2204.13902): tAB-DEIS takes the polynomial in
time (mode ``tab``), rhoAB-DEIS in sigma (mode ``rhoab``). Karras et al. 2022 (arXiv:2206.00364, table 1) give the map between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.multistep import along_past_slopes, linear_multistep_coeff
from comfy.sampling.polynomials import lagrange_polynomial
from comfy.sampling.solver_run import SolverRun, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

numpy = lazy_module("numpy")
legendre = lazy_module("numpy.polynomial.legendre")
polynomial = lazy_module("numpy.polynomial.polynomial")

MODES = ("tab", "rhoab")
MOST_SLOPES = 4
LOWEST_SIGMA, HIGHEST_SIGMA, LOWEST_TIME = 0.002, 80.0, 1e-3  # the range that the times from LOWEST_TIME to 1 stand for
QUADRATURE_POINTS = 64


class PreservingTime:
    """Times of the variance preserving SDE: ``sigma(t)**2 + 1 = exp(slope * t**2 / 2 + start * t)``."""

    def __init__(self) -> None:
        low, high = math.log(LOWEST_SIGMA**2 + 1), math.log(HIGHEST_SIGMA**2 + 1)
        self.slope = 2 * (low / LOWEST_TIME - high) / (LOWEST_TIME - 1)
        self.start = high - self.slope / 2

    def of(self, sigma: Any) -> Any:
        """The time of a sigma (a number or a numpy array)."""
        return (numpy.sqrt(self.start**2 + 2 * self.slope * numpy.log(sigma**2 + 1)) - self.start) / self.slope


def time_weights(sigmas: list[float], step: int, count: int) -> list[float]:
    """The weights of the last *count* slopes, newest first, in the step from ``sigmas[step]``: integrals of polynomials in time."""
    clock = PreservingTime()
    times = [float(clock.of(sigma)) for sigma in sigmas[step - count + 1 : step + 1]][::-1]
    start, end = sigmas[step], sigmas[step + 1]
    points, shares = legendre.leggauss(QUADRATURE_POINTS)
    between = clock.of((start + end) / 2 + (end - start) / 2 * points)
    shares = shares * (end - start) / 2
    return [float((shares * polynomial.polyval(between, lagrange_polynomial(times, back))).sum()) for back in range(count)]


@without_gradients
def sample_deis(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    max_order: int = 3,
    deis_mode: str = "tab",
) -> Tensor:
    """DEIS over up to *max_order* (1 to 4) slopes; *deis_mode* is ``tab`` or ``rhoab``. Arguments: see ``solver_run``.

    The first step is Euler's. Raises ``ValueError`` for other orders and modes.
    """
    if deis_mode not in MODES:
        raise ValueError(f"unknown deis_mode {deis_mode!r}; known: {', '.join(MODES)}")
    if not 1 <= max_order <= MOST_SLOPES:
        raise ValueError(f"max_order is {max_order}; it must be from 1 to {MOST_SLOPES}")
    levels = sigmas.detach().double().cpu().tolist()

    def weights(step: int, count: int) -> list[float]:
        if count == 1:
            return [levels[step + 1] - levels[step]]
        if deis_mode == "tab":
            return time_weights(levels, step, count)
        return [linear_multistep_coeff(count, levels, step, back) for back in range(count)]

    return along_past_slopes(SolverRun(model, x, sigmas, extra_args, callback, disable), x, weights, max_order)
