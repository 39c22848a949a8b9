"""Sinusoidal embeddings of scalars: the time step, and SDXL's picture sizes (Vaswani et al. 2017; Ho et al. 2020)."""

import math

import torch


def timestep_embedding(timesteps: torch.Tensor, dim: int, max_period: float = 10000, repeat_only: bool = False) -> torch.Tensor:
    """Embed a vector of N scalars, which may be fractions, as N x *dim* float32: cosines, then sines, then a zero if *dim* is odd.

    ``repeat_only`` returns the scalars repeated *dim* times instead.
    """
    if repeat_only:
        return timesteps[:, None].expand(-1, dim)
    half = dim // 2
    exponents = -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(exponents)
    waves = [angles.cos(), angles.sin()]
    if dim % 2:
        waves.append(angles.new_zeros(len(angles), 1))
    return torch.cat(waves, dim=-1)


class Timestep(torch.nn.Module):
    """A module that applies :func:`timestep_embedding` with a fixed width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Embed N scalars as N x dim, float32."""
        return timestep_embedding(timesteps, self.dim)
