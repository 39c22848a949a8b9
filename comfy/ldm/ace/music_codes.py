"""Codes of music, five to a second, and what ACE-Step 1.5 makes of them: hints for the latent to come.

Shapes: B batch, N codes, P places of a latent per code, C width of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.ace.ace_step15_layers import AceStepEncoderLayer, cast, kept, rotations

HEADS, KEY_HEADS, WIDER = 16, 8, 3  # of the blocks here, whatever the sizes of the other encoders


class ResidualFSQ(torch.nn.Module):
    """Codes for vectors: each of a few values is rounded to one of *levels* steps from -1 to 1. One code for a vector."""

    def __init__(self, levels: Sequence[int], dim: int, **made: Any) -> None:
        super().__init__()
        linear = made["operations"].Linear
        self.levels = tuple(levels)
        self.project_in = linear(dim, len(levels), **kept(made))
        self.project_out = linear(len(levels), dim, **kept(made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is left of *x* (…, dim) when it becomes codes, as vectors of that width."""
        steps = torch.tensor(self.levels, device=x.device, dtype=x.dtype) - 1
        bound = 1 + 1 / steps
        values = (self.project_in(x) / bound).tanh() * bound
        numbers = (steps * (values.tanh() + 1) / 2 + 0.5).floor()
        return self.project_out(2 / steps * numbers - 1)

    def get_output_from_indices(self, indices: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The vectors (B x N x dim) of codes *indices* (B x N)."""
        levels = torch.tensor(self.levels, device=indices.device)
        bases = torch.tensor([prod(self.levels[:place]) for place in range(len(self.levels))], device=indices.device)
        numbers = (indices[..., None] // bases) % levels
        return self.project_out((numbers * (2 / (levels - 1)) - 1).to(dtype))


class AttentionPooler(torch.nn.Module):
    """Several vectors become one, that of a token of its own which attends to them."""

    def __init__(self, hidden_size: int, num_layers: int, head_dim: int, rms_norm_eps: float, **made: Any) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.embed_tokens = made["operations"].Linear(hidden_size, hidden_size, **kept(made))
        self.norm = made["operations"].RMSNorm(hidden_size, eps=rms_norm_eps, **kept(made))
        self.special_token = torch.nn.Parameter(torch.empty(1, 1, hidden_size, **kept(made)))
        sizes = (hidden_size, HEADS, KEY_HEADS, head_dim, hidden_size * WIDER, rms_norm_eps)
        self.layers = torch.nn.ModuleList(AceStepEncoderLayer(*sizes, **made) for _ in range(num_layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x P x C to B x N x C."""
        tokens = self.embed_tokens(x).flatten(0, 1)
        tokens = torch.cat((cast(self.special_token, tokens).expand(len(tokens), -1, -1), tokens), dim=1)
        turns = rotations(tokens.shape[1], self.head_dim, tokens)
        for layer in self.layers:
            tokens = layer(tokens, turns)
        return self.norm(tokens)[:, 0].unflatten(0, x.shape[:2])


class AceStepAudioTokenizer(torch.nn.Module):
    """A latent becomes what its codes say."""

    def __init__(
        self,
        audio_acoustic_hidden_dim: int,
        hidden_size: int,
        pool_window_size: int,
        fsq_dim: int,
        fsq_levels: Sequence[int],
        num_layers: int,
        head_dim: int,
        rms_norm_eps: float,
        **made: Any,
    ) -> None:
        super().__init__()
        self.audio_acoustic_proj = made["operations"].Linear(audio_acoustic_hidden_dim, hidden_size, **kept(made))
        self.attention_pooler = AttentionPooler(hidden_size, num_layers, head_dim, rms_norm_eps, **made)
        self.pool_window_size = pool_window_size
        self.quantizer = ResidualFSQ(fsq_levels, fsq_dim, **made)

    def tokenize(self, x: torch.Tensor) -> torch.Tensor:
        """B x places x channels to B x N x C; places that fill no code are filled up with zeros."""
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.pool_window_size)).unflatten(1, (-1, self.pool_window_size))
        return self.quantizer(self.attention_pooler(self.audio_acoustic_proj(x)))


class AudioTokenDetokenizer(torch.nn.Module):
    """Vectors of codes become hints for a latent."""

    def __init__(
        self, hidden_size: int, pool_window_size: int, audio_acoustic_hidden_dim: int, num_layers: int, head_dim: int, **made: Any
    ) -> None:
        super().__init__()
        linear = made["operations"].Linear
        self.pool_window_size, self.head_dim = pool_window_size, head_dim
        self.embed_tokens = linear(hidden_size, hidden_size, **kept(made))
        self.special_tokens = torch.nn.Parameter(torch.empty(1, pool_window_size, hidden_size, **kept(made)))
        sizes = (hidden_size, HEADS, KEY_HEADS, head_dim, hidden_size * WIDER)
        self.layers = torch.nn.ModuleList(AceStepEncoderLayer(*sizes, **made) for _ in range(num_layers))
        self.norm = made["operations"].RMSNorm(hidden_size, **kept(made))
        self.proj_out = linear(hidden_size, audio_acoustic_hidden_dim, **kept(made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x (N·P) x channels."""
        tokens = self.embed_tokens(x)[:, :, None] + cast(self.special_tokens, x)[:, None]
        tokens = tokens.flatten(0, 1)
        turns = rotations(self.pool_window_size, self.head_dim, tokens)
        for layer in self.layers:
            tokens = layer(tokens, turns)
        return self.proj_out(self.norm(tokens)).unflatten(0, x.shape[:2]).flatten(1, 2)
