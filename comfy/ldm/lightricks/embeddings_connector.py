"""The small networks between LTX 2's text encoder and its transformer, one for the video and one for the sound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from comfy.ldm.common_dit import rms_norm
from comfy.ldm.lightricks.layers import CrossAttention, FeedForward
from comfy.ldm.lightricks.rotations import Rotations, generate_freq_grid_np, generate_freq_grid_pytorch, rotations

FEWEST_TOKENS = 1024
LONGEST_TEXT = 4096
REGISTERS = 128


class BasicTransformerBlock1D(torch.nn.Module):
    """Attention of the text's tokens to each other, and a feed-forward."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        apply_gated_attention: bool = False,
        ff_bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.attn1 = CrossAttention(dim, heads=n_heads, dim_head=d_head, apply_gated_attention=apply_gated_attention, **kept)
        self.ff = FeedForward(dim, dim, glu=True, ff_bias=ff_bias, **kept)

    def forward(self, hidden_states: torch.Tensor, attention_mask: Any = None, pe: Rotations | None = None) -> torch.Tensor:
        """Batch x tokens x *dim*."""
        seen = hidden_states + self.attn1(rms_norm(hidden_states), mask=attention_mask, pe=pe)
        return seen + self.ff(rms_norm(seen))


class Embeddings1DConnector(torch.nn.Module):
    """Text of any length becomes at least 1024 tokens, the rest of which are learned ones, and goes through blocks.

    *split_rope*: pairs of values that are turned are of a head's halves instead of neighbours; *double_precision_rope*: how fast they turn
    is worked out in float64.
    """

    def __init__(
        self,
        attention_head_dim: int = 128,
        num_attention_heads: int = 30,
        num_layers: int = 2,
        positional_embedding_theta: float = 10000.0,
        positional_embedding_max_pos: Sequence[int] = (LONGEST_TEXT,),
        num_learnable_registers: int | None = REGISTERS,
        apply_gated_attention: bool = False,
        connector_ff_bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        split_rope: bool = False,
        double_precision_rope: bool = False,
    ) -> None:
        super().__init__()
        self.dtype, self.num_attention_heads = dtype, num_attention_heads
        self.inner_dim = num_attention_heads * attention_head_dim
        self.positional_embedding_theta = positional_embedding_theta
        self.positional_embedding_max_pos = list(positional_embedding_max_pos)
        self.split_rope, self.double_precision_rope = split_rope, double_precision_rope
        sizes = (self.inner_dim, num_attention_heads, attention_head_dim, apply_gated_attention, connector_ff_bias)
        self.transformer_1d_blocks = torch.nn.ModuleList(
            BasicTransformerBlock1D(*sizes, dtype=dtype, device=device, operations=operations) for _ in range(num_layers)
        )
        self.num_learnable_registers = num_learnable_registers
        if num_learnable_registers:
            registers = torch.empty(num_learnable_registers, self.inner_dim, dtype=dtype, device=device)
            self.learnable_registers = torch.nn.Parameter(registers)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Batch x tokens x values; the mask, which learned tokens make useless, becomes one that lets all look."""
        count = hidden_states.shape[1]
        if self.num_learnable_registers:
            repeats = math.ceil(max(FEWEST_TOKENS, count) / self.num_learnable_registers)
            learned = self.learnable_registers.to(hidden_states).repeat(repeats, 1)[count:]
            hidden_states = torch.cat((hidden_states, learned.expand(len(hidden_states), -1, -1)), dim=1)
            if attention_mask is not None:
                attention_mask = attention_mask.new_zeros((1, 1, 1, hidden_states.shape[1]))
        turns = self._turns(hidden_states)
        for block in self.transformer_1d_blocks:
            hidden_states = block(hidden_states, attention_mask=attention_mask, pe=turns)
        return rms_norm(hidden_states), attention_mask

    def _turns(self, tokens: torch.Tensor) -> Rotations:
        places = torch.arange(tokens.shape[1], dtype=torch.float32, device=tokens.device)[None, None]
        grid = generate_freq_grid_np if self.double_precision_rope else generate_freq_grid_pytorch
        frequencies = grid(self.positional_embedding_theta, 1, self.inner_dim, tokens.device)
        longest = self.positional_embedding_max_pos
        return rotations(places, frequencies, self.inner_dim, self.num_attention_heads, longest, tokens.dtype, False, self.split_rope)
