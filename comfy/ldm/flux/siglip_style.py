"""USO's projector: hidden states of three of SigLIP's layers become tokens that stand before Flux's text."""

from __future__ import annotations

from typing import Any

import torch

LEVELS = ("high", "mid", "low")  # in the order of their tokens


class SigLIPMultiFeatProjModel(torch.nn.Module):
    """For each level a layer across tokens with SiLU, a norm, and a layer to the width of Flux."""

    source_name = ""  # the file it comes from

    def __init__(
        self,
        *,
        hidden_size: int,
        siglip_token_dims: int,
        siglip_token_nums: int,
        style_token_nums: int,
        operations: Any,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        self.siglip_token_nums, self.siglip_token_dims, self.hidden_size = siglip_token_nums, siglip_token_dims, hidden_size
        for level in LEVELS:
            across = torch.nn.Sequential(operations.Linear(siglip_token_nums, style_token_nums, **kept), torch.nn.SiLU())
            norm = operations.LayerNorm(siglip_token_dims, **kept)
            self.add_module(f"{level}_embedding_linear", across)
            self.add_module(f"{level}_layer_norm", norm)
            self.add_module(f"{level}_projection", operations.Linear(siglip_token_dims, hidden_size, **kept))

    def forward(self, siglip_outputs: torch.Tensor) -> torch.Tensor:
        """B x 3·style tokens x hidden size, from 3 (low, mid, high) x B x tokens x SigLIP's width."""
        return torch.cat([self._level(level, states) for level, states in zip(LEVELS, siglip_outputs.flip(0))], dim=1)

    def _level(self, level: str, states: torch.Tensor) -> torch.Tensor:
        across, norm, projection = (getattr(self, f"{level}_{name}") for name in ("embedding_linear", "layer_norm", "projection"))
        result: torch.Tensor = projection(norm(across(states.transpose(1, 2)).transpose(1, 2)))
        return result
