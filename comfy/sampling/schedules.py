"""Noise schedules. Each function returns the levels to step through: descending sigmas, float32 on the CPU, that usually end in zero.

Some compute them by a formula from sigma_min to sigma_max, others pick them from the table of a model's sampling object.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.sampling.solver_run import append_zero

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import ModelSampling

torch = lazy_module("torch")
numpy = lazy_module("numpy")
scipy_stats = lazy_module("scipy.stats")

ZERO_TOLERANCE = 1e-5


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    """Equal steps in sigma^(1/rho) (Karras et al. 2022, eq. 5), then zero."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    roots = high + torch.linspace(0, 1, n, device=device) * (low - high)
    return append_zero(roots**rho).to(device)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    """Equal steps in log sigma, then zero."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n, device=device).exp())


def get_sigmas_polyexponential(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu") -> Tensor:
    """Steps in log sigma whose place in the range is a power *rho* of equal steps, then zero."""
    place = torch.linspace(1, 0, n, device=device) ** rho
    low = math.log(sigma_min)
    return append_zero((place * (math.log(sigma_max) - low) + low).exp())


def get_sigmas_vp(n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3, device: Any = "cpu") -> Tensor:
    """Equal time steps of the variance preserving SDE (Song et al. 2021, arXiv:2011.13456), then zero."""
    time = torch.linspace(1, eps_s, n, device=device)
    return append_zero((beta_d * time**2 / 2 + beta_min * time).expm1().sqrt())


def get_sigmas_laplace(n: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5, device: Any = "cpu") -> Tensor:
    """Quantiles of a Laplace distribution of log sigma, cut to the range (Hang et al. 2024, arXiv:2407.03297). No final zero."""
    offset = 0.5 - torch.linspace(0, 1, n, device=device)
    log_sigma = mu - beta * offset.sign() * (1 - 2 * offset.abs() + ZERO_TOLERANCE).log()
    return log_sigma.exp().clamp(min=sigma_min, max=sigma_max)


def kl_optimal_scheduler(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Equal steps in arctan sigma, which minimise a bound of the KL divergence (Sabour et al. 2024, arXiv:2404.14507), then zero."""
    place = torch.arange(n, dtype=torch.float) / max(n - 1, 1)
    return append_zero((place * math.atan(sigma_min) + (1 - place) * math.atan(sigma_max)).tan())


def simple_scheduler(model_sampling: ModelSampling, steps: int) -> Tensor:
    """Every (table length / steps)-th sigma of the table, from the highest down, then zero."""
    table = model_sampling.sigmas
    stride = len(table) / steps
    return torch.FloatTensor([float(table[-1 - int(step * stride)]) for step in range(steps)] + [0.0])


def ddim_scheduler(model_sampling: ModelSampling, steps: int) -> Tensor:
    """DDIM's uniform stride from the table's second entry up (Song et al. 2020, arXiv:2010.02502); can give more than *steps* steps."""
    table = model_sampling.sigmas
    starts_at_zero = _is_zero(table[1])
    stride = max(len(table) // (steps + 1 if starts_at_zero else steps), 1)
    ascending = ([] if starts_at_zero else [0.0]) + [float(sigma) for sigma in table[1::stride]]
    return torch.FloatTensor(ascending[::-1])


def normal_scheduler(model_sampling: ModelSampling, steps: int, sgm: bool = False, floor: bool = False) -> Tensor:
    """Equal steps in the model's time, then zero; *sgm* leaves out the last time. *floor* is not used."""
    first, last = model_sampling.timestep(model_sampling.sigma_max), model_sampling.timestep(model_sampling.sigma_min)
    ends_at_zero = not sgm and _is_zero(model_sampling.sigma(last))
    times = torch.linspace(float(first), float(last), steps + 1 if sgm or ends_at_zero else steps)
    sigmas = [float(model_sampling.sigma(time)) for time in (times[:-1] if sgm else times)]
    return torch.FloatTensor(sigmas if ends_at_zero else [*sigmas, 0.0])


def beta_scheduler(model_sampling: ModelSampling, steps: int, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Times at quantiles of a beta distribution, dense at both ends (Lee et al. 2024, arXiv:2407.12173), then zero.

    Quantiles that fall on the same entry of the table count once, so there may be fewer than *steps* steps.
    """
    table = model_sampling.sigmas
    quantiles = 1 - numpy.linspace(0, 1, steps, endpoint=False)
    places = numpy.rint(scipy_stats.beta.ppf(quantiles, alpha, beta) * (len(table) - 1)).astype(int).tolist()
    kept = [place for before, place in zip([None, *places], places) if place != before]
    return torch.FloatTensor([*(float(table[place]) for place in kept), 0.0])


def linear_quadratic_schedule(
    model_sampling: ModelSampling, steps: int, threshold_noise: float = 0.025, linear_steps: int | None = None
) -> Tensor:
    """Small equal steps down from full noise, then steps that grow quadratically (Movie Gen and Mochi).

    The removed share of noise grows linearly to *threshold_noise* over *linear_steps* (default: half of *steps*), and then along the
    parabola that continues its value and slope and reaches 1 at the end.
    """
    linear = max(steps // 2, 1) if linear_steps is None else linear_steps
    removed = [step * threshold_noise / linear for step in range(min(linear, steps))]
    rest = steps - linear
    if rest > 0:
        slope = threshold_noise / linear
        curvature = (1 - threshold_noise - slope * rest) / rest**2
        removed += [threshold_noise + slope * step + curvature * step**2 for step in range(rest)]
    return torch.FloatTensor([1.0 - share for share in removed] + [0.0]) * model_sampling.sigma_max.cpu()


def _is_zero(sigma: Any) -> bool:
    return math.isclose(float(sigma), 0, abs_tol=ZERO_TOLERANCE)
