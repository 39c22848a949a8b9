"""The layers that Chroma has beside Flux's, with ComfyUI's constructors and parameter names."""

from __future__ import annotations

from typing import Any

import torch

from comfy.ldm.flux.layers import DoubleStreamBlock, MLPEmbedder, ModulationOut, SingleStreamBlock

__all__ = ["Approximator", "ChromaModulationOut", "DoubleStreamBlock", "LastLayer", "SingleStreamBlock"]


class ChromaModulationOut(ModulationOut):
    """Shift, scale and gate, which lie behind each other among all modulations."""

    @classmethod
    def from_offset(cls, tensor: torch.Tensor, offset: int = 0) -> ModulationOut:
        """Those from row *offset* on of *tensor* (B x rows x C): B x 1 x C each."""
        return cls(*tensor[:, offset : offset + 3].split(1, dim=1))


class Approximator(torch.nn.Module):
    """Makes the modulations of all blocks: residual layers over one row for each."""

    def __init__(
        self, in_dim: int, out_dim: int, hidden_dim: int, n_layers: int = 5, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.in_proj = operations.Linear(in_dim, hidden_dim, **kept)
        self.layers = torch.nn.ModuleList(MLPEmbedder(hidden_dim, hidden_dim, operations=operations, **kept) for _ in range(n_layers))
        self.norms = torch.nn.ModuleList(operations.RMSNorm(hidden_dim, **kept) for _ in range(n_layers))
        self.out_proj = operations.Linear(hidden_dim, out_dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        x = self.in_proj(x)
        for layer, norm in zip(self.layers, self.norms):
            x = x + layer(norm(x))
        return self.out_proj(x)


class LastLayer(torch.nn.Module):
    """From tokens to patches of the latent."""

    def __init__(
        self, hidden_size: int, patch_size: int, out_channels: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kept)
        self.linear = operations.Linear(hidden_size, out_channels, **kept)

    def forward(self, x: torch.Tensor, vec: Any) -> torch.Tensor:
        """B x N x C to B x N x values of a patch; *vec*: shift and scale, B x 1 x C each, or all modulations, whose last they are."""
        shift, scale = vec[:, -2:].split(1, dim=1) if torch.is_tensor(vec) else vec
        return self.linear(torch.addcmul(shift, 1 + scale, self.norm_final(x)))
