"""Multistep solvers over sigma: each step goes along a mix of the last slopes dx/dsigma. One model call per step.

Adams-Bashforth with uneven steps (``lms``, as proposed for diffusion by Katherine Crowson), its forms with fixed weights (``ipndm``) and in
divided differences (``ipndm_v``), and gradient estimation. Arguments: see ``solver_run``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from comfy.sampling.cfg_pp import UnconditionedRun
from comfy.sampling.polynomials import integral, lagrange_polynomial
from comfy.sampling.solver_run import SolverRun, to_d, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

Weights = Callable[[int, int], list[float]]
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def linear_multistep_coeff(order: int, t: Sequence[float], i: int, j: int) -> float:
    """The weight that the slope *j* steps back has in the step from ``t[i]`` to ``t[i + 1]``.

    This is the integral of the Lagrange polynomial through the last *order* times over the step. Raises ``ValueError`` when fewer
    than *order* slopes exist.
    """
    if order > i + 1:
        raise ValueError(f"order {order} needs {order} slopes, but step {i} has {i + 1}")
    times = [float(t[i - back]) for back in range(order)]
    return integral(lagrange_polynomial(times, j), times[0], float(t[i + 1]))


@without_gradients
def sample_lms(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    order: int = 4,
) -> Tensor:
    """Linear multistep solver over up to *order* slopes."""
    times = sigmas.detach().double().cpu().tolist()

    def weights(step: int, count: int) -> list[float]:
        return [linear_multistep_coeff(count, times, step, back) for back in range(count)]

    return along_past_slopes(SolverRun(model, x, sigmas, extra_args, callback, disable), x, weights, order)


def along_past_slopes(run: SolverRun, x: Tensor, weights: Weights, most: int) -> Tensor:
    """Walk *run* along mixes of up to *most* slopes, the newest first; the step to zero takes the model's picture. Returns the latent."""
    slopes: list[Tensor] = []
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        slopes = [to_d(x, sigma, denoised), *slopes][:most]
        if sigma_next == 0:
            x = denoised
        else:
            x = x + sum(weight * slope for weight, slope in zip(weights(step, len(slopes)), slopes))
    return x


@without_gradients
def sample_ipndm(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    max_order: int = 4,
) -> Tensor:
    """Improved pseudo numerical method over up to *max_order* (1 to 4) slopes, with the weights of even steps.

    Zhang and Chen 2022 (arXiv:2204.13902, section 3.3), after the pseudo numerical methods of Liu et al. 2022 (arXiv:2202.09778).
    """
    _check_order(max_order)
    times = sigmas.detach().double().cpu().tolist()

    def weights(step: int, count: int) -> list[float]:
        return [(times[step + 1] - times[step]) * weight for weight in ADAMS_BASHFORTH[count - 1]]

    return along_past_slopes(SolverRun(model, x, sigmas, extra_args, callback, disable), x, weights, max_order)


@without_gradients
def sample_ipndm_v(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    max_order: int = 4,
) -> Tensor:
    """:func:`sample_ipndm` with weights for uneven steps, by Zhou et al. 2024 (arXiv:2312.00094, code at zju-pi/diff-sampler).

    The weights of the second and third difference are not the exact ones: in that code, and so in ComfyUI, a bracket, a sign and a ratio of
    widths differ, and with very uneven steps the error is large. Pictures depend on them, so they are kept; ``lms`` has the exact weights.
    """
    _check_order(max_order)
    times = sigmas.detach().double().cpu().tolist()

    def weights(step: int, count: int) -> list[float]:
        widths = [times[step + 1 - back] - times[step - back] for back in range(count)]
        return [widths[0] * weight for weight in _uneven_weights(widths)]

    return along_past_slopes(SolverRun(model, x, sigmas, extra_args, callback, disable), x, weights, max_order)


def _check_order(max_order: int) -> None:
    if not 1 <= max_order <= len(ADAMS_BASHFORTH):
        raise ValueError(f"max_order is {max_order}; it must be from 1 to {len(ADAMS_BASHFORTH)}")


def _uneven_weights(widths: list[float]) -> list[float]:
    """The weights of the slopes, newest first, for a step of the first of *widths*; the others are those of the steps before it."""
    weights = [0.0] * len(widths)
    for difference, factor in zip(_differences(widths), _difference_factors(widths)):
        for back, share in enumerate(difference):
            weights[back] += factor * share
    if len(widths) == len(ADAMS_BASHFORTH):
        weights[-1] *= widths[1] * widths[3] / widths[2] ** 2
    return weights


def _differences(widths: list[float]) -> list[list[float]]:
    """The newest slope and, scaled to the newest of them, its differences of rising order, each as weights of the slopes."""
    found = [[1.0]]
    divided = [[1.0 if back == number else 0.0 for back in range(len(widths))] for number in range(len(widths))]
    scale = 1.0
    for order in range(1, len(widths)):
        span = [sum(widths[number + 1 : number + 1 + order]) for number in range(len(divided) - 1)]
        divided = [
            [(newer - older) / width for newer, older in zip(divided[number], divided[number + 1])] for number, width in enumerate(span)
        ]
        scale *= sum(widths[1 : 1 + order])
        found.append([share * scale for share in divided[0]])
    return found


def _difference_factors(widths: list[float]) -> list[float]:
    now, *past = widths
    factors = [1.0]
    if past:
        factors.append(now / past[0] / 2)
    if len(past) > 1:
        factors.append((1 - now**2 / (3 * past[0] * (past[0] + past[1]))) / 2)
    if len(past) > 2:
        one, two, three = past[0], past[0] + past[1], past[0] + past[1] + past[2]
        factors.append(now * (5 * now**2 + 8 * now * one + 4 * now * two + 6 * one * two) / (12 * one * two * three))
    return factors


@without_gradients
def sample_gradient_estimation(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    ge_gamma: float = 2.0,
    cfg_pp: bool = False,
) -> Tensor:
    """Euler's method along a slope that the last change of the slope, times *ge_gamma* - 1, continues.

    Permenter and Yuan 2023 (arXiv:2306.04848, algorithm 2). With *cfg_pp* slopes are told from the unconditioned denoised latent.
    """
    kind = UnconditionedRun if cfg_pp else SolverRun
    run = kind(model, x, sigmas, extra_args, callback, disable)
    before: Tensor | None = None
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        source = run.unconditioned if isinstance(run, UnconditionedRun) else denoised
        slope = to_d(x, sigma, source)
        x = denoised + slope * sigma_next
        if before is not None:
            x = x + (ge_gamma - 1) * (slope - before) * (sigma_next - sigma)
        before = slope
    return x


@without_gradients
def sample_gradient_estimation_cfg_pp(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    ge_gamma: float = 2.0,
) -> Tensor:
    """:func:`sample_gradient_estimation` with CFG++."""
    return sample_gradient_estimation(model, x, sigmas, extra_args, callback, disable, ge_gamma, cfg_pp=True)
