"""Mage-Flow's network in ComfyUI's tree, published weight names and hooks: Qwen-Image's, for which each latent pixel is a token.

Shapes: B batch, I tokens of the picture and its references, T tokens of text, C width of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from comfy.ldm.qwen_image.layers import TIME_CHANNELS, TIME_SCALE, TimestepEmbedding
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

__all__ = ["MageFlowTransformer2DModel", "MageTimestepProjEmbeddings"]

PERIOD = 10000


class MageTimestepProjEmbeddings(torch.nn.Module):
    """The embedded time; its waves' frequencies are rounded to the time's dtype, as the network was trained."""

    def __init__(self, embedding_dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, embedding_dim, dtype, device, operations)

    def forward(self, timestep: torch.Tensor, hidden_states: torch.Tensor, addition_t_cond: None = None) -> torch.Tensor:
        """Times (B, 0 to 1) as B x C in the dtype of *hidden_states*."""
        half = TIME_CHANNELS // 2
        exponents = -math.log(PERIOD) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
        angles = timestep.float()[:, None] * exponents.exp().to(timestep.dtype).float() * TIME_SCALE
        embedded: torch.Tensor = self.timestep_embedder(torch.cat((angles.cos(), angles.sin()), dim=-1).to(hidden_states.dtype))
        return embedded


class MageFlowTransformer2DModel(QwenImageTransformer2DModel):
    """The network. Reference pictures are frames counted from 1."""

    def __init__(
        self,
        in_channels: int = 128,
        out_channels: int | None = 128,
        num_layers: int = 12,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 2560,
        axes_dims_rope: Sequence[int] = (16, 56, 56),
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        kept: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        super().__init__(
            patch_size=1,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=num_layers,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            joint_attention_dim=joint_attention_dim,
            axes_dims_rope=axes_dims_rope,
            **kept,
        )
        self.time_text_embed: Any = MageTimestepProjEmbeddings(self.inner_dim, **kept)

    def process_img(
        self, x: torch.Tensor, index: int = 0, h_offset: int = 0, w_offset: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
        """(tokens B x I x channels, their places B x I x 3, the shape) of *x* (B x channels x height x width).

        Places are frame *index*, row and column, counted from the middle; of an odd number, one more is before it.
        """
        height, width = x.shape[-2:]
        frame = torch.tensor([index], device=x.device)
        rows = torch.arange(height, device=x.device) + h_offset - (height - height // 2)
        columns = torch.arange(width, device=x.device) + w_offset - (width - width // 2)
        places = torch.cartesian_prod(frame, rows, columns).to(torch.float32)
        return x.flatten(2).transpose(1, 2), places.expand(len(x), -1, -1), x.shape

    def _text_places(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """B x T x 3: all of the text stands at the beginning, unturned."""
        return torch.zeros((len(x), context.shape[1], 3), device=x.device)

    def _as_latent(self, tokens: torch.Tensor, padded: torch.Size) -> torch.Tensor:
        """Tokens (B x I x channels) as a latent of the shape *padded*'s height and width."""
        return tokens.transpose(1, 2).unflatten(2, padded[-2:])
