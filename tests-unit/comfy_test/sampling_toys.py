"""A denoiser whose exact solution is known, and stand-ins for what samplers expect around a model."""

from types import SimpleNamespace

import torch

import comfy.model_sampling

MEAN, DEVIATION = 0.7, 0.5


class DiscreteEps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Stable Diffusion's schedule."""


class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """A rectified flow."""


class GaussianModel:
    """The optimal denoiser of data that is normal with MEAN and DEVIATION, called as samplers call a model.

    ``calls`` collects the sigmas it was asked at.
    """

    def __init__(self, sampling=None):
        self.sampling = DiscreteEps() if sampling is None else sampling
        self.is_flow = isinstance(self.sampling, comfy.model_sampling.CONST)
        patcher = SimpleNamespace(get_model_object=lambda name: self.sampling)
        self.inner_model = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=self.sampling), model_patcher=patcher)
        self.calls = []

    def __call__(self, x, sigma, **extra_args):
        self.calls.append(float(sigma[0]))
        level = sigma.view(-1, *[1] * (x.ndim - 1))
        signal = 1 - level if self.is_flow else torch.ones_like(level)
        variance = DEVIATION**2
        return MEAN + variance * signal / (signal**2 * variance + level**2) * (x - signal * MEAN)


def exact_solution(x, sigma_from, sigma_to):
    """Where the probability flow carries *x* from one sigma to another: quantiles stay quantiles."""
    spread_from, spread_to = ((DEVIATION**2 + sigma**2) ** 0.5 for sigma in (sigma_from, sigma_to))
    return MEAN + (x - MEAN) * spread_to / spread_from


def geometric_sigmas(highest, lowest, steps):
    """Equal steps in log sigma, float64, without a final zero."""
    return torch.logspace(
        torch.log10(torch.tensor(highest)).item(), torch.log10(torch.tensor(lowest)).item(), steps + 1, dtype=torch.float64
    )
