"""Flux Redux's projector: hidden states of SigLIP become tokens of Flux's text."""

from __future__ import annotations

from typing import Any

import torch

import comfy.ops

TEXT_WIDTH = 4096  # of T5-XXL
SIGLIP_WIDTH = 1152
EXPANSION = 3


class ReduxImageEncoder(torch.nn.Module):
    """Two layers, with SiLU between them, over each token."""

    def __init__(
        self,
        redux_dim: int = SIGLIP_WIDTH,
        txt_in_features: int = TEXT_WIDTH,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.redux_dim, self.device, self.dtype = redux_dim, device, dtype
        operations: Any = comfy.ops.manual_cast
        self.redux_up = operations.Linear(redux_dim, EXPANSION * txt_in_features, dtype=dtype, device=device)
        self.redux_down = operations.Linear(EXPANSION * txt_in_features, txt_in_features, dtype=dtype, device=device)

    def forward(self, sigclip_embeds: torch.Tensor) -> torch.Tensor:
        """B x tokens x text width from B x tokens x SigLIP's width."""
        inner: torch.Tensor = self.redux_up(sigclip_embeds)
        result: torch.Tensor = self.redux_down(torch.nn.functional.silu(inner))
        return result
