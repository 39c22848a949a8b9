"""The layers of OmniGen2, which Boogu shares.

Shapes: B batch, T tokens of text, N of all, C width of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.modules.attention import optimized_attention_masked

Options = dict[str, Any]

TIME_CHANNELS, TIME_WIDTH = 256, 1024  # the width at most
EPS = 1e-5
apply_rotary_emb = apply_rope1


class TimestepEmbedding(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, time_embed_dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_channels, time_embed_dim, dtype=dtype, device=device)
        self.linear_2 = operations.Linear(time_embed_dim, time_embed_dim, dtype=dtype, device=device)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """B x in to B x C."""
        result: torch.Tensor = self.linear_2(F.silu(self.linear_1(sample)))
        return result


class LuminaRMSNormZero(torch.nn.Module):
    """A norm scaled by the time, which also gives a gate for what follows, and scale and gate of the wider layer."""

    def __init__(self, embedding_dim: int, norm_eps: float = EPS, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.linear = operations.Linear(min(embedding_dim, TIME_WIDTH), 4 * embedding_dim, dtype=dtype, device=device)
        self.norm = operations.RMSNorm(embedding_dim, eps=norm_eps, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(*x* normalised and scaled, B x N x C; three of B x 1 x C) at the embedded time *emb*."""
        scale, gate, wide_scale, wide_gate = self.linear(F.silu(emb))[:, None].chunk(4, dim=-1)
        return self.norm(x) * (1 + scale), gate, wide_scale, wide_gate


class LuminaLayerNormContinuous(torch.nn.Module):
    """A norm scaled by the time, and the values of a patch."""

    def __init__(
        self,
        embedding_dim: int,
        conditioning_embedding_dim: int,
        out_dim: int,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.linear_1 = operations.Linear(conditioning_embedding_dim, embedding_dim, **kept)
        self.norm = operations.LayerNorm(embedding_dim, 1e-6, False, **kept)
        self.linear_2 = operations.Linear(embedding_dim, out_dim, **kept)

    def forward(self, x: torch.Tensor, conditioning_embedding: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x values."""
        scale = self.linear_1(F.silu(conditioning_embedding).to(x.dtype))[:, None]
        result: torch.Tensor = self.linear_2(self.norm(x) * (1 + scale))
        return result


class LuminaFeedForward(torch.nn.Module):
    """A wider layer, gated by another."""

    def __init__(
        self, dim: int, inner_dim: int, multiple_of: int = 256, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        inner = -(-inner_dim // multiple_of) * multiple_of
        kept = {"bias": False, "dtype": dtype, "device": device}
        self.linear_1, self.linear_3 = (operations.Linear(dim, inner, **kept) for _ in range(2))
        self.linear_2 = operations.Linear(inner, dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to the same."""
        result: torch.Tensor = self.linear_2(F.silu(self.linear_1(x)) * self.linear_3(x))
        return result


class Lumina2CombinedTimestepCaptionEmbedding(torch.nn.Module):
    """The embedded time, and the text in the network's width."""

    def __init__(
        self,
        hidden_size: int = 4096,
        text_feat_dim: int = 2048,
        norm_eps: float = EPS,
        timestep_scale: float = 1.0,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.timestep_scale = timestep_scale
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, min(hidden_size, TIME_WIDTH), **kept, operations=operations)
        norm = operations.RMSNorm(text_feat_dim, eps=norm_eps, **kept)
        self.caption_embedder = torch.nn.Sequential(norm, operations.Linear(text_feat_dim, hidden_size, **kept))

    def forward(self, timestep: torch.Tensor, text_hidden_states: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(B x width of the time, B x T x C) of times (B) and B x T x width of the text."""
        waves = timestep_embedding(timestep * self.timestep_scale, TIME_CHANNELS).to(dtype)
        return self.timestep_embedder(waves), self.caption_embedder(text_hidden_states)


class Attention(torch.nn.Module):
    """Attention with normalised and rotated queries and keys; *kv_heads* heads of keys and values, each for several of queries."""

    def __init__(
        self,
        query_dim: int,
        dim_head: int,
        heads: int,
        kv_heads: int,
        eps: float = EPS,
        bias: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.heads, self.kv_heads, self.dim_head = heads, kv_heads, dim_head
        self.to_q = operations.Linear(query_dim, heads * dim_head, bias=bias, **kept)
        self.to_k, self.to_v = (operations.Linear(query_dim, kv_heads * dim_head, bias=bias, **kept) for _ in range(2))
        self.norm_q, self.norm_k = (operations.RMSNorm(dim_head, eps=eps, **kept) for _ in range(2))
        self.to_out = torch.nn.Sequential(operations.Linear(heads * dim_head, query_dim, bias=bias, **kept), torch.nn.Dropout(0.0))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C of tokens to the same. *image_rotary_emb*: rotations B x 1 x N x D/2 x 2 x 2. *attention_mask*: added to scores."""
        values = self.to_q(hidden_states), self.to_k(encoder_hidden_states), self.to_v(encoder_hidden_states)
        result: torch.Tensor = self.to_out[0](attended(self, values, image_rotary_emb, attention_mask, transformer_options))
        return result


def attended(
    layer: Any,
    values: Sequence[torch.Tensor],
    rotations: torch.Tensor | None,
    mask: torch.Tensor | None = None,
    options: Options | None = None,
) -> torch.Tensor:
    """What queries, keys and values (*values*, each B x N x their width) attend to, with the norms and heads of *layer*: B x N x C."""
    q, k, v = (value.unflatten(-1, (-1, layer.dim_head)) for value in values)
    q, k, v = layer.norm_q(q).transpose(1, 2), layer.norm_k(k).transpose(1, 2), v.transpose(1, 2)
    if rotations is not None:
        q, k = apply_rotary_emb(q, rotations), apply_rotary_emb(k, rotations)
    shared = {"enable_gqa": True} if layer.kv_heads < layer.heads else {}
    result: torch.Tensor = optimized_attention_masked(
        q, k, v, layer.heads, mask, skip_reshape=True, transformer_options=options or {}, **shared
    )
    return result


class OmniGen2TransformerBlock(torch.nn.Module):
    """Attention and a wider layer between norms; with *modulation*, scaled and gated by the time."""

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        num_kv_heads: int,
        multiple_of: int,
        norm_eps: float,
        modulation: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.modulation = modulation
        self.attn = Attention(dim, dim // num_attention_heads, num_attention_heads, num_kv_heads, **kept, operations=operations)
        self.feed_forward = LuminaFeedForward(dim, 4 * dim, multiple_of, **kept, operations=operations)
        if modulation:
            self.norm1: Any = LuminaRMSNormZero(dim, norm_eps, **kept, operations=operations)
        else:
            self.norm1 = operations.RMSNorm(dim, eps=norm_eps, **kept)
        self.ffn_norm1, self.norm2, self.ffn_norm2 = (operations.RMSNorm(dim, eps=norm_eps, **kept) for _ in range(3))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: torch.Tensor,
        temb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same, at the embedded time *temb*."""
        settings = attention_mask, image_rotary_emb, transformer_options
        if not self.modulation:
            normal = self.norm1(hidden_states)
            hidden_states = hidden_states + self.norm2(self.attn(normal, normal, *settings))
            result: torch.Tensor = hidden_states + self.ffn_norm2(self.feed_forward(self.ffn_norm1(hidden_states)))
            return result
        normal, gate, wide_scale, wide_gate = self.norm1(hidden_states, temb)
        hidden_states = hidden_states + gate.tanh() * self.norm2(self.attn(normal, normal, *settings))
        fed = self.feed_forward(self.ffn_norm1(hidden_states) * (1 + wide_scale))
        result = hidden_states + wide_gate.tanh() * self.ffn_norm2(fed)
        return result
