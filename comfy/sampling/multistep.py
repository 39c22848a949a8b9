"""Linear multistep integration over sigma (Adams-Bashforth with uneven steps, as proposed for diffusion by Katherine Crowson)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.solver_run import SolverRun, to_d, without_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import Denoiser

polynomial = lazy_module("numpy.polynomial.polynomial")


def linear_multistep_coeff(order: int, t: Sequence[float], i: int, j: int) -> float:
    """The weight that the slope *j* steps back has in the step from ``t[i]`` to ``t[i + 1]``.

    This is the integral of the Lagrange polynomial through the last *order* times over the step. Raises ``ValueError`` when fewer
    than *order* slopes exist.
    """
    if order > i + 1:
        raise ValueError(f"order {order} needs {order} slopes, but step {i} has {i + 1}")
    others = [float(t[i - k]) for k in range(order) if k != j]
    scale = 1.0
    for other in others:
        scale *= float(t[i - j]) - other
    antiderivative = polynomial.polyint(polynomial.polyfromroots(others) / scale)
    return float(polynomial.polyval(float(t[i + 1]), antiderivative) - polynomial.polyval(float(t[i]), antiderivative))


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
    """Linear multistep solver over up to *order* slopes; one model call per step. Arguments: see ``solver_run``."""
    run = SolverRun(model, x, sigmas, extra_args, callback, disable)
    times = sigmas.detach().double().cpu().tolist()
    slopes: list[Tensor] = []
    for step, sigma, sigma_next in run.steps():
        denoised = run.denoise_and_report(step, x, sigma)
        slopes = [to_d(x, sigma, denoised), *slopes][:order]
        if sigma_next == 0:
            x = denoised
        else:
            x = x + sum(linear_multistep_coeff(len(slopes), times, step, back) * slope for back, slope in enumerate(slopes))
    return x
