"""How Cosmos 1 and Cosmos-Predict2 embed times and cells of the latent, with ComfyUI's parameter names.

Shapes: B batch, F frames, R rows, K columns (of cells), C channels.
"""

from __future__ import annotations

from typing import Any

import torch

from comfy.families.timestep_embedding import timestep_embedding


class Timesteps(torch.nn.Module):
    """Times as cosines and sines."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """B x F to B x F x channels, float32."""
        return timestep_embedding(timesteps.flatten().float(), self.num_channels).unflatten(0, timesteps.shape)


class TimestepEmbedding(torch.nn.Module):
    """Two linear layers with SiLU; with *use_adaln_lora* they make what all modulations share, and the input stays the embedding."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        use_adaln_lora: bool = False,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.use_adaln_lora = use_adaln_lora
        target = 3 * out_features if use_adaln_lora else out_features
        self.linear_1 = operations.Linear(in_features, out_features, bias=not use_adaln_lora, device=device, dtype=dtype)
        self.activation = torch.nn.SiLU()
        self.linear_2 = operations.Linear(out_features, target, bias=False, device=device, dtype=dtype)

    def forward(self, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(embedding B x F x C, what modulations share B x F x 3·C or None)."""
        embedded = self.linear_2(self.activation(self.linear_1(sample)))
        return (sample, embedded) if self.use_adaln_lora else (embedded, None)


class _Cells(torch.nn.Module):
    """Cuts B x channels x frames x height x width into cells: B x F x R x K x (channels · frames · rows · columns of a cell)."""

    def __init__(self, spatial: int, temporal: int) -> None:
        super().__init__()
        self.spatial, self.temporal = spatial, temporal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = x.unflatten(4, (-1, self.spatial)).unflatten(3, (-1, self.spatial)).unflatten(2, (-1, self.temporal))
        return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


class PatchEmbed(torch.nn.Module):
    """Cells of the latent as tokens."""

    def __init__(
        self,
        spatial_patch_size: int,
        temporal_patch_size: int,
        in_channels: int = 3,
        out_channels: int = 768,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.spatial_patch_size, self.temporal_patch_size = spatial_patch_size, temporal_patch_size
        self.dim = in_channels * spatial_patch_size**2 * temporal_patch_size
        layer = operations.Linear(self.dim, out_channels, bias=False, device=device, dtype=dtype)
        self.proj = torch.nn.Sequential(_Cells(spatial_patch_size, temporal_patch_size), layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width, in whole cells, to B x F x R x K x C."""
        return self.proj(x)


def with_padding_mask(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """*x* (B x channels x frames x height x width) with a channel more, which marks padding: *mask*, B x 1 x any size, or none."""
    batch, _, frames, height, width = x.shape
    if mask is None:
        channel = x.new_zeros((batch, 1, frames, height, width))
    else:
        resized = torch.nn.functional.interpolate(mask, size=(height, width), mode="nearest")
        channel = resized.unsqueeze(2).expand(batch, 1, frames, height, width).to(x)
    return torch.cat((x, channel), dim=1)


def joined_cells(cells: torch.Tensor, spatial: int, temporal: int) -> torch.Tensor:
    """B x F x R x K x (rows · columns · frames of a cell · channels) to B x channels x frames x height x width."""
    parts = cells.unflatten(-1, (spatial, spatial, temporal, -1))
    return parts.permute(0, 7, 1, 6, 2, 4, 3, 5).flatten(6, 7).flatten(4, 5).flatten(2, 3)
