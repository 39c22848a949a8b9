"""The blocks of ACE-Step 1's network, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens, C width of a token, H heads, D width of a head. ``made``: the layers' ``operations``, ``dtype``, ``device``.
Files also hold projections of the text's own queries (``add_…_proj``, ``to_add_out``), which nothing computes with; they are not read.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
from comfy.ldm.ace.ace_step15_layers import Turns, cast, kept
from comfy.placeholders import placeholders

SHARES = 6  # of a block's modulation
EPS, NO_WEIGHT = 1e-6, 1e-15


def t2i_modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """*x* scaled by one plus *scale*, and shifted."""
    return torch.addcmul(shift, x, 1 + scale)


def turned(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    """*x* (B x H x N x D): its pairs of neighbouring values turned, by the angles (N x D) that the model was trained with: those of the
    first half of a head come again in the second.
    """
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack((-second, first), dim=-1).flatten(-2)
    return (x.float() * turns[0] + across.float() * turns[1]).to(x.dtype)


class Attention(torch.nn.Module):
    """Projections of queries, keys and values. To itself attention is linear (no softmax), to a context it is the usual one."""

    def __init__(self, query_dim: int, heads: int, dim_head: int, is_cross_attention: bool, **made: Any) -> None:
        super().__init__()
        linear = made["operations"].Linear
        self.heads, self.dim_head, self.is_cross_attention = heads, dim_head, is_cross_attention
        self.to_q = linear(query_dim, query_dim, **kept(made))
        self.to_k = linear(query_dim, query_dim, **kept(made))
        self.to_v = linear(query_dim, query_dim, **kept(made))
        self.to_out = torch.nn.ModuleList([linear(query_dim, query_dim, **kept(made))])

    def forward(
        self,
        hidden_states: torch.Tensor,
        turns: Turns,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_turns: Turns | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """*hidden_states* B x N x C to themselves, or to *encoder_hidden_states* B x tokens x C with turns of their own."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.to_q, hidden_states), (self.to_k, source), (self.to_v, source))
        )
        query, key = turned(query, turns), turned(key, turns if encoder_turns is None else encoder_turns)
        if encoder_hidden_states is None:
            return self.to_out[0](_linear_attention(query, key, value))
        attention = comfy.ldm.modules.attention.optimized_attention
        attended = attention(query, key, value, self.heads, skip_reshape=True, transformer_options=transformer_options or {})
        return self.to_out[0](attended)


def _linear_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Means of values, each weighted by what its key and a query have in common, none of it negative; B x N x C. In float32."""
    queries, keys = query.relu().float(), key.relu().float()
    values = F.pad(value.float(), (0, 1), value=1.0)  # with the sum of the weights
    sums = queries @ (keys.transpose(-1, -2) @ values)
    return (sums[..., :-1] / (sums[..., -1:] + NO_WEIGHT)).transpose(1, 2).flatten(2).to(query.dtype)


class ConvLayer(torch.nn.Module):
    """A convolution, perhaps with SiLU after it."""

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int, groups: int = 1, use_bias: bool = True, act: bool = False, **made: Any):
        super().__init__()
        sizes = {"kernel_size": kernel_size, "padding": kernel_size // 2, "groups": groups, "bias": use_bias}
        self.conv, self.act = made["operations"].Conv1d(in_dim, out_dim, **sizes, **kept(made)), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x in x N to B x out x N."""
        x = self.conv(x)
        return F.silu(x) if self.act else x


class GLUMBConv(torch.nn.Module):
    """A wider layer whose channels see their neighbours, half of which gate the others; and a narrower one."""

    def __init__(self, in_features: int, hidden_features: int, **made: Any) -> None:
        super().__init__()
        wide = 2 * hidden_features
        self.inverted_conv = ConvLayer(in_features, wide, 1, act=True, **made)
        self.depth_conv = ConvLayer(wide, wide, 3, groups=wide, **made)
        self.point_conv = ConvLayer(hidden_features, in_features, 1, use_bias=False, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x C."""
        values, gate = self.depth_conv(self.inverted_conv(x.transpose(1, 2))).chunk(2, dim=1)
        return self.point_conv(values * F.silu(gate)).transpose(1, 2)


class LinearTransformerBlock(torch.nn.Module):
    """Linear attention, attention to what is asked for, and the convolutions."""

    def __init__(self, dim: int, num_attention_heads: int, attention_head_dim: int, mlp_ratio: float, **made: Any) -> None:
        super().__init__()
        norm = made["operations"].RMSNorm
        self.norm1 = norm(dim, eps=EPS, elementwise_affine=False)
        self.attn = Attention(dim, num_attention_heads, attention_head_dim, is_cross_attention=False, **made)
        self.cross_attn = Attention(dim, num_attention_heads, attention_head_dim, is_cross_attention=True, **made)
        self.norm2 = norm(dim, eps=EPS, elementwise_affine=False)
        self.ff = GLUMBConv(dim, int(dim * mlp_ratio), **made)
        self.scale_shift_table = torch.nn.Parameter(torch.empty(SHARES, dim, **kept(made)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        rotary_freqs_cis: Turns,
        rotary_freqs_cis_cross: Turns,
        temb: torch.Tensor,
        transformer_options: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """*hidden_states* B x N x C, *encoder_hidden_states* B x tokens x C, *temb* B x 6C."""
        modulation = cast(self.scale_shift_table[None], temb) + temb.unflatten(-1, (SHARES, -1))
        shift, scale, gate, late_shift, late_scale, late_gate = modulation.chunk(SHARES, dim=1)
        attended = self.attn(t2i_modulate(self.norm1(hidden_states), shift, scale), rotary_freqs_cis)
        x = torch.addcmul(hidden_states, gate, attended)
        x = x + self.cross_attn(x, rotary_freqs_cis, encoder_hidden_states, rotary_freqs_cis_cross, transformer_options)
        return torch.addcmul(x, late_gate, self.ff(t2i_modulate(self.norm2(x), late_shift, late_scale)))


__getattr__, __dir__ = placeholders(
    __name__, "ACE-Step models", "CustomLiteLAProcessor2_0:object CustomerAttnProcessor2_0:object val2list() val2tuple() get_same_padding()"
)
