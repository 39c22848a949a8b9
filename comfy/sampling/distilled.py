"""Sampling objects for latent consistency models, which were distilled at fifty of the thousand steps (arXiv:2310.04378)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.model_sampling

CONSISTENCY_SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


class LCM(comfy.model_sampling.EPS):
    """A noise prediction whose result approaches the input itself as time goes to zero."""

    timestep: Callable[[torch.Tensor], torch.Tensor]

    def calculate_denoised(self, sigma: torch.Tensor, model_output: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        ndim = model_output.ndim
        time = comfy.model_sampling.reshape_sigma(self.timestep(sigma), ndim) * TIMESTEP_SCALING
        picture = model_input - model_output * comfy.model_sampling.reshape_sigma(sigma, ndim)
        variance = time**2 + CONSISTENCY_SIGMA_DATA**2
        return time / variance**0.5 * picture + CONSISTENCY_SIGMA_DATA**2 / variance * model_input


class ModelSamplingDiscreteDistilled(comfy.model_sampling.ModelSamplingDiscrete):
    """The discrete schedule reduced to every twentieth step."""

    original_timesteps = 50

    def __init__(self, model_config: Any = None, zsnr: bool | None = None) -> None:
        super().__init__(model_config, zsnr=zsnr)
        self.skip_steps = self.num_timesteps // self.original_timesteps
        kept = torch.arange(self.original_timesteps - 1, -1, -1) * self.skip_steps
        self.set_sigmas(self.sigmas[self.num_timesteps - 1 - kept].clone())

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """The model's time at *sigma*: that of the nearest remaining step."""
        return super().timestep(sigma) * self.skip_steps + (self.skip_steps - 1)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The sigma at *timestep*, interpolated between the remaining steps."""
        return super().sigma((timestep.float() - (self.skip_steps - 1)) / self.skip_steps)
