"""What an autoencoder's encoder puts out, as a distribution to draw latents from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

LOG_VARIANCE_RANGE = (-30.0, 20.0)


class AbstractDistribution:
    """Something latents can be drawn from."""

    def sample(self) -> Any:
        """A value drawn at random."""
        raise NotImplementedError

    def mode(self) -> Any:
        """The likeliest value."""
        raise NotImplementedError


class DiracDistribution(AbstractDistribution):
    """A value that is certain."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def sample(self) -> Any:
        """The value."""
        return self.value

    def mode(self) -> Any:
        """The value."""
        return self.value


class DiagonalGaussianDistribution:
    """Independent normal values. *parameters*, batch x 2·channels x …, hold the means, then the logarithms of the variances.

    With *deterministic* the variance is zero.
    """

    def __init__(self, parameters: torch.Tensor, deterministic: bool = False) -> None:
        self.parameters = parameters
        self.deterministic = deterministic
        self.mean, log_variance = parameters.chunk(2, dim=1)
        self.logvar = log_variance.clamp(*LOG_VARIANCE_RANGE)
        self.var = torch.zeros_like(self.mean) if deterministic else self.logvar.exp()
        self.std = torch.zeros_like(self.mean) if deterministic else (self.logvar / 2).exp()

    def sample(self) -> torch.Tensor:
        """Values drawn with torch's generator of the parameters' device."""
        return self.mean + self.std * torch.randn(self.mean.shape, device=self.parameters.device)

    def mode(self) -> torch.Tensor:
        """The means."""
        return self.mean

    def kl(self, other: DiagonalGaussianDistribution | None = None) -> torch.Tensor:
        """The divergence from *other*, or from the standard normal distribution: one value per batch entry."""
        if self.deterministic:
            return torch.zeros(1)
        dims = list(range(1, self.mean.ndim))
        if other is None:
            return (self.mean**2 + self.var - 1 - self.logvar).sum(dims) / 2
        return ((self.mean - other.mean) ** 2 / other.var + self.var / other.var - 1 - self.logvar + other.logvar).sum(dims) / 2

    def nll(self, sample: torch.Tensor, dims: Sequence[int] = (1, 2, 3)) -> torch.Tensor:
        """The negative logarithm of the likelihood of *sample*, added up over *dims*."""
        if self.deterministic:
            return torch.zeros(1)
        return (math.log(2 * math.pi) + self.logvar + (sample - self.mean) ** 2 / self.var).sum(list(dims)) / 2


def normal_kl(mean1: Any, logvar1: Any, mean2: Any, logvar2: Any) -> torch.Tensor:
    """The divergence between normal distributions, value by value; numbers and tensors may be mixed, one being a tensor."""
    like = next(value for value in (mean1, logvar1, mean2, logvar2) if isinstance(value, torch.Tensor))
    first, second = (torch.as_tensor(value).to(like) for value in (logvar1, logvar2))
    return (second - first + (first - second).exp() + (mean1 - mean2) ** 2 * (-second).exp() - 1) / 2
