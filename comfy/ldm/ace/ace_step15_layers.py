"""The layers of ACE-Step 1.5's networks, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens, C width of a token, H heads, D width of a head. ``made``: the layers' ``operations``, ``dtype``, ``device``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
import comfy.model_management
from comfy.ldm.flux.layers import timestep_embedding

Made = Mapping[str, Any]
Turns = tuple[torch.Tensor, torch.Tensor]

ROPE_THETA = 1000000.0
TIME_CHANNELS = 256
SHARES = 6  # of a block's modulation: shift, scale and gate of the attention and of the feed-forward layer


def kept(made: Made) -> dict[str, Any]:
    """The dtype and device of *made*."""
    return {"dtype": made["dtype"], "device": made["device"]}


def cast(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """*parameter* where and as *like* is."""
    return comfy.model_management.cast_to(parameter, dtype=like.dtype, device=like.device)


def rotations(tokens: int, width: int, like: torch.Tensor) -> Turns:
    """Cosines and sines of the places of *tokens* tokens, N x D, where and as *like* is."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=like.device) / width
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32, device=like.device), 1.0 / ROPE_THETA**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turned(x: torch.Tensor, turns: Turns) -> torch.Tensor:
    """*x* (B x H x N x D), each value of the first half of a head together with one of the second turned by *turns*."""
    first, second = x.chunk(2, dim=-1)
    return x * turns[0] + torch.cat((-second, first), dim=-1) * turns[1]


def window_mask(tokens: int, window: int, device: torch.device) -> torch.Tensor | None:
    """N x N, true for tokens at most *window* places apart; None where all are."""
    if tokens <= window + 1:
        return None
    places = torch.arange(tokens, device=device)
    return (places[:, None] - places).abs() <= window


class MLP(torch.nn.Module):
    """Two wider layers, one of which gates the other by SiLU, and a narrower one."""

    def __init__(self, hidden_size: int, intermediate_size: int, **made: Any) -> None:
        super().__init__()
        linear = made["operations"].Linear
        self.gate_proj = linear(hidden_size, intermediate_size, bias=False, **kept(made))
        self.up_proj = linear(hidden_size, intermediate_size, bias=False, **kept(made))
        self.down_proj = linear(intermediate_size, hidden_size, bias=False, **kept(made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TimestepEmbedding(torch.nn.Module):
    """Times as vectors, and as the shares of every block's modulation."""

    def __init__(self, in_channels: int, time_embed_dim: int, scale: float = 1000, **made: Any) -> None:
        super().__init__()
        linear = made["operations"].Linear
        self.in_channels, self.scale = in_channels, scale
        self.linear_1 = linear(in_channels, time_embed_dim, **kept(made))
        self.linear_2 = linear(time_embed_dim, time_embed_dim, **kept(made))
        self.time_proj = linear(time_embed_dim, time_embed_dim * SHARES, **kept(made))

    def forward(self, t: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(B x C, B x 6 x C) of times *t* (B, 0 to 1)."""
        frequencies = timestep_embedding(t, self.in_channels, time_factor=self.scale).to(dtype)
        vector = self.linear_2(F.silu(self.linear_1(frequencies)))
        return vector, self.time_proj(F.silu(vector)).unflatten(-1, (SHARES, -1))


class AceStepAttention(torch.nn.Module):
    """Attention with fewer heads of keys and values than of queries, whose queries and keys are normalised head by head."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        rms_norm_eps: float = 1e-6,
        is_cross_attention: bool = False,
        sliding_window: int | None = None,
        **made: Any,
    ) -> None:
        super().__init__()
        self.hidden_size, self.num_heads, self.num_kv_heads, self.head_dim = hidden_size, num_heads, num_kv_heads, head_dim
        self.is_cross_attention, self.sliding_window = is_cross_attention, sliding_window
        linear, norm = made["operations"].Linear, made["operations"].RMSNorm
        self.q_proj = linear(hidden_size, num_heads * head_dim, bias=False, **kept(made))
        self.k_proj = linear(hidden_size, num_kv_heads * head_dim, bias=False, **kept(made))
        self.v_proj = linear(hidden_size, num_kv_heads * head_dim, bias=False, **kept(made))
        self.o_proj = linear(num_heads * head_dim, hidden_size, bias=False, **kept(made))
        self.q_norm = norm(head_dim, eps=rms_norm_eps, **kept(made))
        self.k_norm = norm(head_dim, eps=rms_norm_eps, **kept(made))

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: Turns | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """*hidden_states* B x N x C attend to themselves, or to *encoder_hidden_states*. *attention_mask*: N x N, true where they may."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.head_dim))
            for layer, x in ((self.q_proj, hidden_states), (self.k_proj, source), (self.v_proj, source))
        )
        query, key, value = self.q_norm(query).transpose(1, 2), self.k_norm(key).transpose(1, 2), value.transpose(1, 2)
        if position_embeddings is not None:
            query, key = turned(query, position_embeddings), turned(key, position_embeddings)
        grouped = {"enable_gqa": True} if self.num_heads != self.num_kv_heads else {}
        attended = comfy.ldm.modules.attention.optimized_attention(
            query,
            key,
            value,
            self.num_heads,
            attention_mask,
            skip_reshape=True,
            low_precision_attention=False,
            transformer_options=transformer_options or {},
            **grouped,
        )
        return self.o_proj(attended)


class AceStepDiTLayer(torch.nn.Module):
    """A block of the diffusion model: attention to itself, to what is asked for, and a feed-forward layer."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        intermediate_size: int,
        rms_norm_eps: float = 1e-6,
        layer_type: str = "full_attention",
        sliding_window: int = 128,
        **made: Any,
    ) -> None:
        super().__init__()
        norm = made["operations"].RMSNorm
        sizes = (hidden_size, num_heads, num_kv_heads, head_dim, rms_norm_eps)
        window = sliding_window if layer_type == "sliding_attention" else None
        self.self_attn_norm = norm(hidden_size, eps=rms_norm_eps, **kept(made))
        self.self_attn = AceStepAttention(*sizes, sliding_window=window, **made)
        self.cross_attn_norm = norm(hidden_size, eps=rms_norm_eps, **kept(made))
        self.cross_attn = AceStepAttention(*sizes, is_cross_attention=True, **made)
        self.mlp_norm = norm(hidden_size, eps=rms_norm_eps, **kept(made))
        self.mlp = MLP(hidden_size, intermediate_size, **made)
        self.scale_shift_table = torch.nn.Parameter(torch.empty(1, SHARES, hidden_size, **kept(made)))

    def forward(
        self,
        hidden_states: torch.Tensor,
        temb: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        position_embeddings: Turns,
        attention_mask: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """*hidden_states* B x N x C, *temb* B x 6 x C, *encoder_hidden_states* B x tokens x C, *attention_mask* for the first attention."""
        modulation = cast(self.scale_shift_table, temb) + temb
        shift, scale, gate, late_shift, late_scale, late_gate = modulation.chunk(SHARES, dim=1)
        normed = torch.addcmul(shift, self.self_attn_norm(hidden_states), 1 + scale)
        attended = self.self_attn(normed, None, attention_mask, position_embeddings, transformer_options)
        hidden_states = torch.addcmul(hidden_states, attended, gate)
        asked = self.cross_attn(self.cross_attn_norm(hidden_states), encoder_hidden_states, transformer_options=transformer_options)
        hidden_states = hidden_states + asked
        normed = torch.addcmul(late_shift, self.mlp_norm(hidden_states), 1 + late_scale)
        return torch.addcmul(hidden_states, self.mlp(normed), late_gate)


class AceStepEncoderLayer(torch.nn.Module):
    """A block of the encoders: attention and a feed-forward layer."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        intermediate_size: int,
        rms_norm_eps: float = 1e-6,
        **made: Any,
    ) -> None:
        super().__init__()
        norm = made["operations"].RMSNorm
        self.self_attn = AceStepAttention(hidden_size, num_heads, num_kv_heads, head_dim, rms_norm_eps, **made)
        self.input_layernorm = norm(hidden_size, eps=rms_norm_eps, **kept(made))
        self.post_attention_layernorm = norm(hidden_size, eps=rms_norm_eps, **kept(made))
        self.mlp = MLP(hidden_size, intermediate_size, **made)

    def forward(self, hidden_states: torch.Tensor, position_embeddings: Turns) -> torch.Tensor:
        """B x N x C to B x N x C."""
        hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states), position_embeddings=position_embeddings)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
