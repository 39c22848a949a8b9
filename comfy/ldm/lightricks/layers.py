"""The layers of LTX's networks, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens, T tokens of the text, C width of a token, M times (1, or one per token).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

import comfy.ldm.modules.attention
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.common_dit import rms_norm
from comfy.ldm.lightricks.guides import GuideAttentionMask, attend_with_guides
from comfy.ldm.lightricks.rotations import Rotations, apply_rotary_emb
from comfy.ops import linear_input_act

Options = dict[str, Any]
TIME_WIDTH = 256  # of embedded times
# Values per channel with which a time changes a block: shift, scale and share of attention and of the feed-forward, then of that to text.
ADALN_BASE_PARAMS_COUNT = 6
ADALN_CROSS_ATTN_PARAMS_COUNT = 9


class TimestepEmbedding(torch.nn.Module):
    """Embedded times through two layers."""

    def __init__(
        self,
        in_channels: int,
        time_embed_dim: int,
        out_dim: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_channels, time_embed_dim, dtype=dtype, device=device)
        self.act = torch.nn.SiLU()
        self.linear_2 = operations.Linear(time_embed_dim, out_dim or time_embed_dim, dtype=dtype, device=device)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """N x channels."""
        return self.linear_2(self.act(self.linear_1(sample)))


class PixArtAlphaCombinedTimestepSizeEmbeddings(torch.nn.Module):
    """Times as *embedding_dim* values."""

    def __init__(self, embedding_dim: int, size_emb_dim: int = 0, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.outdim = size_emb_dim
        self.timestep_embedder = TimestepEmbedding(TIME_WIDTH, embedding_dim, dtype=dtype, device=device, operations=operations)

    def forward(self, timestep: torch.Tensor, hidden_dtype: torch.dtype, **ignored: Any) -> torch.Tensor:
        """*timestep*: N times. ComfyUI also passes sizes, which say nothing here."""
        return self.timestep_embedder(timestep_embedding(timestep, TIME_WIDTH).to(hidden_dtype))


class AdaLayerNormSingle(torch.nn.Module):
    """Times as *embedding_coefficient* values per channel, which change a block, and as they were before."""

    def __init__(
        self,
        embedding_dim: int,
        embedding_coefficient: int = ADALN_BASE_PARAMS_COUNT,
        use_additional_conditions: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.emb = PixArtAlphaCombinedTimestepSizeEmbeddings(embedding_dim, embedding_dim // 3, **kept)
        self.silu = torch.nn.SiLU()
        self.linear = operations.Linear(embedding_dim, embedding_coefficient * embedding_dim, dtype=dtype, device=device)

    def forward(
        self, timestep: torch.Tensor, added_cond_kwargs: Any = None, batch_size: int | None = None, hidden_dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """*timestep*: N times; N x values twice."""
        embedded = self.emb(timestep, hidden_dtype=hidden_dtype or timestep.dtype)
        return self.linear(self.silu(embedded)), embedded


class PixArtAlphaTextProjection(torch.nn.Module):
    """Text of one width to another, through two layers."""

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        out_features: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_features, hidden_size, dtype=dtype, device=device)
        self.act_1 = torch.nn.GELU(approximate="tanh")
        self.linear_2 = operations.Linear(hidden_size, out_features or hidden_size, dtype=dtype, device=device)

    def forward(self, caption: torch.Tensor) -> torch.Tensor:
        """B x T x width of the text."""
        return self.linear_2(self.act_1(self.linear_1(caption)))


class NormSingleLinearTextProjection(torch.nn.Module):
    """Text of one width to another, normalised, through one layer."""

    def __init__(self, in_features: int, hidden_size: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.in_features, self.hidden_size = in_features, hidden_size
        self.linear_1 = operations.Linear(in_features, hidden_size, dtype=dtype, device=device)

    def forward(self, caption: torch.Tensor) -> torch.Tensor:
        """B x T x width of the text."""
        return self.linear_1(rms_norm(caption) * math.sqrt(self.hidden_size / self.in_features))


class GELU_approx(torch.nn.Module):  # noqa: N801 - ComfyUI's name
    """A layer and its activation."""

    def __init__(self, dim_in: int, dim_out: int, bias: bool = True, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out, bias=bias, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """… x values."""
        return torch.nn.functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(torch.nn.Module):
    """Two layers with *mult* times the width between them."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        mult: int = 4,
        glu: bool = False,
        dropout: float = 0.0,
        ff_bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        inside = GELU_approx(dim, dim * mult, ff_bias, dtype=dtype, device=device, operations=operations)
        last = operations.Linear(dim * mult, dim_out, bias=ff_bias, dtype=dtype, device=device)
        self.net = torch.nn.Sequential(inside, torch.nn.Dropout(dropout), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x C."""
        layers: Any = self.net
        return linear_input_act(layers[2], layers[0].proj(x), "gelu_tanh")


class CrossAttention(torch.nn.Module):
    """Attention to *context*, or of tokens to each other; queries and keys are normalised over all heads, then turned by their places.

    *apply_gated_attention*: each head's result counts as much as its token says.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        attn_precision: Any = None,
        apply_gated_attention: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        inner, source = dim_head * heads, query_dim if context_dim is None else context_dim
        self.heads, self.dim_head, self.attn_precision = heads, dim_head, attn_precision
        self.q_norm = operations.RMSNorm(inner, eps=1e-5, **kept)
        self.k_norm = operations.RMSNorm(inner, eps=1e-5, **kept)
        self.to_q = operations.Linear(query_dim, inner, **kept)
        self.to_k = operations.Linear(source, inner, **kept)
        self.to_v = operations.Linear(source, inner, **kept)
        self.to_gate_logits = operations.Linear(query_dim, heads, **kept) if apply_gated_attention else None
        self.to_out = torch.nn.Sequential(operations.Linear(inner, query_dim, **kept), torch.nn.Dropout(dropout))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | GuideAttentionMask | None = None,
        pe: Rotations | None = None,
        k_pe: Rotations | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* B x N x C, *context* B x T x C; *pe* turns queries and, without *k_pe*, keys.

        With ``stg_skip_self_attn`` in *transformer_options*, tokens that would look at each other only look at themselves.
        """
        options = {} if transformer_options is None else transformer_options
        source = x if context is None else context
        value = self.to_v(source)
        if context is None and options.get("stg_skip_self_attn", False):
            attended = value
        else:
            query, key = self.q_norm(self.to_q(x)), self.k_norm(self.to_k(source))
            if pe is not None:
                query, key = apply_rotary_emb(query, pe), apply_rotary_emb(key, pe if k_pe is None else k_pe)
            attended = self._attend(query, key, value, mask, options)
        if self.to_gate_logits is not None:
            shares = 2.0 * torch.sigmoid(self.to_gate_logits(x))
            attended = (attended.unflatten(-1, (self.heads, self.dim_head)) * shares.unsqueeze(-1)).flatten(-2)
        return self.to_out(attended)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | GuideAttentionMask | None, options: Options
    ) -> torch.Tensor:
        settings: dict[str, Any] = {"attn_precision": self.attn_precision, "transformer_options": options}
        if isinstance(mask, GuideAttentionMask):
            return attend_with_guides(query, key, value, self.heads, mask, **settings)
        given = {} if mask is None else {"mask": mask}
        return comfy.ldm.modules.attention.optimized_attention(query, key, value, self.heads, **given, **settings)


def modulated(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """*x* normalised, scaled by 1 + *scale* and moved by *shift*."""
    return torch.addcmul(shift, rms_norm(x), 1 + scale)


def values_of(table: torch.Tensor, times: torch.Tensor, which: slice = slice(None)) -> tuple[torch.Tensor, ...]:
    """The rows *which* of *table* (rows x C), each moved by what *times* (B x M x rows·C) says of it: B x M x C each."""
    own = table[which].to(device=times.device, dtype=times.dtype)
    return (own + times.unflatten(-1, (len(table), -1))[:, :, which]).unbind(dim=2)


def apply_cross_attention_adaln(
    x: torch.Tensor,
    context: torch.Tensor,
    attn: CrossAttention,
    q_shift: torch.Tensor,
    q_scale: torch.Tensor,
    q_gate: torch.Tensor,
    prompt_scale_shift_table: torch.Tensor,
    prompt_timestep: torch.Tensor | None,
    attention_mask: torch.Tensor | None = None,
    transformer_options: Options | None = None,
) -> torch.Tensor:
    """Attention of *x* to text, both changed by the time; *prompt_timestep* is B x 1 x 2·C, None for networks without one."""
    if prompt_timestep is None:
        prompt_timestep = x.new_zeros((len(x), 1, prompt_scale_shift_table.numel()))
    shift, scale = values_of(prompt_scale_shift_table, prompt_timestep)
    text = torch.addcmul(shift, context, 1 + scale)
    return attn(modulated(x, q_scale, q_shift), context=text, mask=attention_mask, transformer_options=transformer_options) * q_gate


def compute_prompt_timestep(
    adaln_module: AdaLayerNormSingle | None, timestep_scaled: torch.Tensor, batch_size: int, hidden_dtype: torch.dtype
) -> torch.Tensor | None:
    """What the latest time of each item says of its text: B x 1 x values; None without *adaln_module*."""
    if adaln_module is None:
        return None
    latest = timestep_scaled.amax(dim=1) if timestep_scaled.ndim > 1 else timestep_scaled
    return adaln_module(latest.flatten(), hidden_dtype=hidden_dtype)[0].view(batch_size, 1, -1)


class BasicTransformerBlock(torch.nn.Module):
    """A block of the video network."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        context_dim: int | None = None,
        attn_precision: Any = None,
        cross_attention_adaln: bool = False,
        ff_bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        heads: dict[str, Any] = {"heads": n_heads, "dim_head": d_head, "attn_precision": attn_precision, "operations": operations}
        self.attn_precision, self.cross_attention_adaln = attn_precision, cross_attention_adaln
        self.attn1 = CrossAttention(dim, **heads, **kept)
        self.ff = FeedForward(dim, dim, glu=True, ff_bias=ff_bias, operations=operations, **kept)
        self.attn2 = CrossAttention(dim, context_dim, **heads, **kept)
        rows = ADALN_CROSS_ATTN_PARAMS_COUNT if cross_attention_adaln else ADALN_BASE_PARAMS_COUNT
        self.scale_shift_table = torch.nn.Parameter(torch.empty(rows, dim, **kept))
        if cross_attention_adaln:
            self.prompt_scale_shift_table = torch.nn.Parameter(torch.empty(2, dim, **kept))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        timestep: torch.Tensor | None = None,
        pe: Rotations | None = None,
        transformer_options: Options | None = None,
        self_attention_mask: torch.Tensor | GuideAttentionMask | None = None,
        prompt_timestep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """*x* B x N x C, which is changed; *timestep* B x M x values."""
        times: Any = timestep
        shift, scale, share, later_shift, later_scale, later_share = values_of(self.scale_shift_table, times, slice(6))
        seen = self.attn1(modulated(x, scale, shift), pe=pe, mask=self_attention_mask, transformer_options=transformer_options)
        x.addcmul_(seen, share)
        settings: Mapping[str, Any] = {"transformer_options": transformer_options}
        if self.cross_attention_adaln:
            shift, scale, share = values_of(self.scale_shift_table, times, slice(6, 9))
            tables = (self.prompt_scale_shift_table, prompt_timestep, attention_mask)
            x += apply_cross_attention_adaln(x, context, self.attn2, shift, scale, share, *tables, **settings)
        else:
            x += self.attn2(x, context=context, mask=attention_mask, **settings)
        return x.addcmul_(self.ff(modulated(x, later_scale, later_shift)), later_share)
