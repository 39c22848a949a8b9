"""The layers of Kandinsky 5, in ComfyUI's tree and weight names.

Shapes: B batch, T tokens of text, N tokens of the video, C width of a token, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

import comfy.ldm.modules.attention
from comfy.ldm.flux.layers import timestep_embedding
from comfy.ldm.flux.math import apply_rope1

Options = dict[str, Any]
THETA = 10000.0
MANY_TOKENS = 8192  # beyond these some layers take them in parts, which needs less memory
PARTS = {"attention": 2, "feed_forward": 4}


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, transformer_options: Options | None = None) -> torch.Tensor:
    """Queries, keys and values, B x tokens x heads x D each, attended to: B x tokens x C."""
    parts = (part.transpose(1, 2) for part in (q, k, v))
    options = transformer_options or {}
    return comfy.ldm.modules.attention.optimized_attention(*parts, heads=heads, skip_reshape=True, transformer_options=options)


def apply_scale_shift_norm(norm: torch.nn.Module, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """*x* normalised, times 1 + *scale*, plus *shift*."""
    return torch.addcmul(shift, norm(x), scale + 1.0)


def apply_gate_sum(x: torch.Tensor, out: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """*x* plus *out* times *gate*."""
    return torch.addcmul(x, gate, out)


def get_shift_scale_gate(params: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Three parts of *params* (B x 3·C), B x 1 x C each."""
    return tuple(part.unsqueeze(1) for part in params.chunk(3, dim=-1))


def get_freqs(dim: int, max_period: float = THETA) -> torch.Tensor:
    """The *dim* frequencies of an embedded time, from 1 down to nearly 1 / *max_period*."""
    return max_period ** -(torch.arange(dim, dtype=torch.float32) / dim)


def _in_parts(run: Callable[..., torch.Tensor], kind: str, x: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
    """*run* of *x* (B x tokens x …) and what stands *beside* it, in parts along dimension 1 where there are many tokens."""
    if x.shape[1] <= MANY_TOKENS:
        return run(x, *beside)
    chunks = (tensor.chunk(PARTS[kind], dim=1) for tensor in (x, *beside))
    return torch.cat([run(*parts) for parts in zip(*chunks)], dim=1)


class TimeEmbeddings(torch.nn.Module):
    """A time as a vector."""

    def __init__(self, model_dim: int, time_dim: int, max_period: float = THETA, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.model_dim, self.max_period = model_dim, max_period
        self.in_layer = operations.Linear(model_dim, time_dim, **kept)
        self.activation = torch.nn.SiLU()
        self.out_layer = operations.Linear(time_dim, time_dim, **kept)

    def forward(self, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """B times (0 to 1000) to B x C of *dtype*."""
        waves = timestep_embedding(timestep, self.model_dim, int(self.max_period), time_factor=1.0).to(dtype)
        return self.out_layer(self.activation(self.in_layer(waves)))


class TextEmbeddings(torch.nn.Module):
    """What a text encoder gives, in the network's width."""

    def __init__(self, text_dim: int, model_dim: int, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.in_layer = operations.Linear(text_dim, model_dim, **kept)
        self.norm = operations.LayerNorm(model_dim, elementwise_affine=True, **kept)

    def forward(self, text_embed: torch.Tensor) -> torch.Tensor:
        """(…, width of the encoder) to (…, C)."""
        wide = self.in_layer(text_embed)
        return self.norm(wide).type_as(wide)


class VisualEmbeddings(torch.nn.Module):
    """Patches of a latent as tokens."""

    def __init__(self, visual_dim: int, model_dim: int, patch_size: Sequence[int], operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.patch_size = patch_size
        self.in_layer = operations.Linear(visual_dim, model_dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width (whole patches) to B x frames x rows x columns x C."""
        for axis, patch in enumerate(self.patch_size):
            x = x.unflatten(2 + 2 * axis, (-1, patch))
        return self.in_layer(x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4))


class Modulation(torch.nn.Module):
    """A layer's shifts, scales and gates from the time."""

    def __init__(self, time_dim: int, model_dim: int, num_params: int, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.activation = torch.nn.SiLU()
        self.out_layer = operations.Linear(time_dim, num_params * model_dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x width of the time to B x (parameters · C)."""
        return self.out_layer(self.activation(x))


class SelfAttention(torch.nn.Module):
    """Attention of tokens to each other, turned by their places."""

    def __init__(self, num_channels: int, head_dim: int, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.num_heads, self.head_dim = num_channels // head_dim, head_dim
        self.to_query, self.to_key, self.to_value = (operations.Linear(num_channels, num_channels, **kept) for _ in range(3))
        self.query_norm, self.key_norm = (operations.RMSNorm(head_dim, **kept) for _ in range(2))
        self.out_layer = operations.Linear(num_channels, num_channels, **kept)

    def heads_of(self, x: torch.Tensor) -> torch.Tensor:
        """B x tokens x C to B x tokens x heads x D."""
        return x.unflatten(-1, (self.num_heads, self.head_dim))

    def forward(self, x: torch.Tensor, freqs: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """*x* B x tokens x C, *freqs* the rotations, B x tokens x 1 x D/2 x 2 x 2."""

        def turned(layer: torch.nn.Module, norm: torch.nn.Module) -> torch.Tensor:
            return _in_parts(lambda part, turns: apply_rope1(norm(self.heads_of(layer(part))), turns), "attention", x, freqs)

        query, key = turned(self.to_query, self.query_norm), turned(self.to_key, self.key_norm)
        return self.out_layer(attention(query, key, self.heads_of(self.to_value(x)), self.num_heads, transformer_options))


class CrossAttention(SelfAttention):
    """Attention of a video's tokens to the text's."""

    def forward(self, x: torch.Tensor, context: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """*x* B x N x C, *context* B x T x C."""
        query = self.query_norm(self.heads_of(self.to_query(x)))
        key = self.key_norm(self.heads_of(self.to_key(context)))
        return self.out_layer(attention(query, key, self.heads_of(self.to_value(context)), self.num_heads, transformer_options))


class FeedForward(torch.nn.Module):
    """Two linear layers without biases."""

    def __init__(self, dim: int, ff_dim: int, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.in_layer = operations.Linear(dim, ff_dim, bias=False, **kept)
        self.activation = torch.nn.GELU()
        self.out_layer = operations.Linear(ff_dim, dim, bias=False, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, tokens, C) to the same."""
        return _in_parts(lambda part: self.out_layer(self.activation(self.in_layer(part))), "feed_forward", x)


class OutLayer(torch.nn.Module):
    """From tokens to a latent."""

    def __init__(
        self, model_dim: int, time_dim: int, visual_dim: int, patch_size: Sequence[int], operation_settings: Options | None = None
    ) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.patch_size = patch_size
        self.modulation = Modulation(time_dim, model_dim, 2, operation_settings)
        self.norm = operations.LayerNorm(model_dim, elementwise_affine=False, **kept)
        self.out_layer = operations.Linear(model_dim, math.prod(patch_size) * visual_dim, **kept)

    def forward(self, visual_embed: torch.Tensor, time_embed: torch.Tensor) -> torch.Tensor:
        """B x frames x rows x columns x C to B x channels x frames x height x width."""
        shift, scale = (part[:, None, None, None] for part in self.modulation(time_embed).chunk(2, dim=-1))
        cells = self.out_layer(apply_scale_shift_norm(self.norm, visual_embed, scale, shift)).unflatten(-1, (-1, *self.patch_size))
        return cells.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)


class TransformerEncoderBlock(torch.nn.Module):
    """Text: attention to itself and a feed-forward layer."""

    def __init__(self, model_dim: int, time_dim: int, ff_dim: int, head_dim: int, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.text_modulation = Modulation(time_dim, model_dim, 6, operation_settings)
        self.self_attention_norm = operations.LayerNorm(model_dim, elementwise_affine=False, **kept)
        self.self_attention = SelfAttention(model_dim, head_dim, operation_settings)
        self.feed_forward_norm = operations.LayerNorm(model_dim, elementwise_affine=False, **kept)
        self.feed_forward = FeedForward(model_dim, ff_dim, operation_settings)

    def forward(
        self, x: torch.Tensor, time_embed: torch.Tensor, freqs: torch.Tensor, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*x* B x T x C after the block."""
        first, second = (get_shift_scale_gate(part) for part in self.text_modulation(time_embed).chunk(2, dim=-1))
        attended = self.self_attention(apply_scale_shift_norm(self.self_attention_norm, x, first[1], first[0]), freqs, transformer_options)
        x = apply_gate_sum(x, attended, first[2])
        return apply_gate_sum(x, self.feed_forward(apply_scale_shift_norm(self.feed_forward_norm, x, second[1], second[0])), second[2])


class TransformerDecoderBlock(torch.nn.Module):
    """Video: attention to itself and to the text, and a feed-forward layer."""

    def __init__(self, model_dim: int, time_dim: int, ff_dim: int, head_dim: int, operation_settings: Options | None = None) -> None:
        super().__init__()
        operations, kept = _settings(operation_settings)
        self.visual_modulation = Modulation(time_dim, model_dim, 9, operation_settings)
        self.self_attention_norm = operations.LayerNorm(model_dim, elementwise_affine=False, **kept)
        self.self_attention = SelfAttention(model_dim, head_dim, operation_settings)
        self.cross_attention_norm = operations.LayerNorm(model_dim, elementwise_affine=False, **kept)
        self.cross_attention = CrossAttention(model_dim, head_dim, operation_settings)
        self.feed_forward_norm = operations.LayerNorm(model_dim, elementwise_affine=False, **kept)
        self.feed_forward = FeedForward(model_dim, ff_dim, operation_settings)

    def forward(
        self,
        visual_embed: torch.Tensor,
        text_embed: torch.Tensor,
        time_embed: torch.Tensor,
        freqs: torch.Tensor,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*visual_embed* B x N x C after the block."""
        x = visual_embed
        first, second, third = (get_shift_scale_gate(part) for part in self.visual_modulation(time_embed).chunk(3, dim=-1))
        attended = self.self_attention(apply_scale_shift_norm(self.self_attention_norm, x, first[1], first[0]), freqs, transformer_options)
        x = apply_gate_sum(x, attended, first[2])
        normalised = apply_scale_shift_norm(self.cross_attention_norm, x, second[1], second[0])
        x = apply_gate_sum(x, self.cross_attention(normalised, text_embed, transformer_options), second[2])
        return apply_gate_sum(x, self.feed_forward(apply_scale_shift_norm(self.feed_forward_norm, x, third[1], third[0])), third[2])


def _settings(given: Options | None) -> tuple[Any, Options]:
    """What makes layers, and their dtype and device."""
    settings = given or {}
    return settings.get("operations"), {"device": settings.get("device"), "dtype": settings.get("dtype")}
