"""The encoder of lyrics in ACE-Step 1's network: a Conformer without convolutions, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens, C width of a token, H heads, D width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.ace.ace_step15_layers import cast, kept

LONGEST_WAVE = 10000.0


def relative_places(tokens: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sines and cosines, in turn, of how far a token is from another: from *tokens* - 1 places before it to as many after; each x width."""
    distances = torch.arange(tokens - 1, -tokens, -1, dtype=torch.float32, device=like.device)
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=torch.float32, device=like.device) * -(math.log(LONGEST_WAVE) / width))
    angles = distances[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(like.dtype)


def shifted(scores: torch.Tensor) -> torch.Tensor:
    """Scores by distance (… x N x (2N - 1)) as scores by token (… x N x N)."""
    tokens = scores.shape[-2]
    padded = F.pad(scores, (1, 0)).flatten(-2).unflatten(-1, (2 * tokens, tokens))
    return padded[..., 1:, :].flatten(-2).unflatten(-1, (tokens, 2 * tokens - 1))[..., :tokens]


class RelPositionMultiHeadedAttention(torch.nn.Module):
    """Attention whose scores also tell how far tokens are from each other."""

    def __init__(self, n_head: int, n_feat: int, **made: Any) -> None:
        super().__init__()
        linear = made["operations"].Linear
        self.h, self.d_k = n_head, n_feat // n_head
        for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
            setattr(self, name, linear(n_feat, n_feat, **kept(made)))
        self.linear_pos = linear(n_feat, n_feat, bias=False, **kept(made))
        self.pos_bias_u = torch.nn.Parameter(torch.empty(n_head, self.d_k, **kept(made)))
        self.pos_bias_v = torch.nn.Parameter(torch.empty(n_head, self.d_k, **kept(made)))

    linear_q: Any
    linear_k: Any
    linear_v: Any
    linear_out: Any

    def forward(self, x: torch.Tensor, pos_emb: torch.Tensor) -> torch.Tensor:
        """*x* B x N x C, *pos_emb* distances x C."""
        query, key, value = (
            layer(x).unflatten(-1, (self.h, -1)).transpose(1, 2) for layer in (self.linear_q, self.linear_k, self.linear_v)
        )
        places = self.linear_pos(pos_emb[None]).unflatten(-1, (self.h, -1)).transpose(1, 2)
        by_content, by_place = (query + cast(bias, query)[:, None] for bias in (self.pos_bias_u, self.pos_bias_v))
        far = shifted(by_place @ places.transpose(-1, -2)) / math.sqrt(self.d_k)
        attended = F.scaled_dot_product_attention(by_content, key, value, attn_mask=far)
        return self.linear_out(attended.transpose(1, 2).flatten(2))


class PositionwiseFeedForward(torch.nn.Module):
    """A wider layer, SiLU, and a narrower one."""

    def __init__(self, idim: int, hidden_units: int, **made: Any) -> None:
        super().__init__()
        self.w_1 = made["operations"].Linear(idim, hidden_units, **kept(made))
        self.w_2 = made["operations"].Linear(hidden_units, idim, **kept(made))

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.w_2(F.silu(self.w_1(xs)))


class ConformerEncoderLayer(torch.nn.Module):
    """Attention and the feed-forward layer, both after a norm."""

    def __init__(self, size: int, heads: int, linear_units: int, **made: Any) -> None:
        super().__init__()
        norm = made["operations"].LayerNorm
        self.self_attn = RelPositionMultiHeadedAttention(heads, size, **made)
        self.feed_forward = PositionwiseFeedForward(size, linear_units, **made)
        self.norm_ff, self.norm_mha = norm(size, eps=1e-5, **kept(made)), norm(size, eps=1e-5, **kept(made))

    def forward(self, x: torch.Tensor, pos_emb: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x C."""
        x = x + self.self_attn(self.norm_mha(x), pos_emb)
        return x + self.feed_forward(self.norm_ff(x))


class LinearEmbed(torch.nn.Module):
    """A linear layer and a norm, called ``out.0`` and ``out.1``."""

    def __init__(self, idim: int, odim: int, **made: Any) -> None:
        super().__init__()
        linear, norm = made["operations"].Linear, made["operations"].LayerNorm
        self.out = torch.nn.Sequential(linear(idim, odim, **kept(made)), norm(odim, eps=1e-5, **kept(made)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out), as large as the blocks expect."""
        x = self.out(x)
        return x * math.sqrt(x.shape[-1])


class ConformerEncoder(torch.nn.Module):
    """The blocks, *blocks* of them, with *heads* each and *units* in the widest layer."""

    def __init__(self, input_size: int, output_size: int, heads: int, units: int, blocks: int, **made: Any) -> None:
        super().__init__()
        self.embed = LinearEmbed(input_size, output_size, **made)
        self.after_norm = made["operations"].LayerNorm(output_size, eps=1e-5, **kept(made))
        self.encoders = torch.nn.ModuleList(ConformerEncoderLayer(output_size, heads, units, **made) for _ in range(blocks))

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """B x N x in to B x N x out."""
        x = self.embed(xs)
        places = relative_places(x.shape[1], x.shape[2], x)
        for layer in self.encoders:
            x = layer(x, places)
        return self.after_norm(x)
