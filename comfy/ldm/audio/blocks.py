"""Layers and blocks of Stable Audio's networks, in ComfyUI's published weight names. :mod:`comfy.ldm.audio.dit` holds ComfyUI's names for
them.

Shapes: B batch, N tokens, W width of a token, D values of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
import comfy.ops

Options = dict[str, Any]
Activation = Callable[[torch.Tensor], torch.Tensor]


class FourierFeatures(torch.nn.Module):
    """Numbers as cosines and sines of learned frequencies."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype | None = None, device: Any = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(out_features // 2, in_features, dtype=dtype, device=device))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """B x in to B x out."""
        angles = 2 * math.pi * numbers @ comfy.ops.cast_to_input(self.weight.T, numbers)
        return torch.cat((angles.cos(), angles.sin()), dim=-1)


class LayerNorm(torch.nn.Module):
    """Normalisation whose scale is called ``gamma``. Published files have a shift beside it, all zeros, which is not read."""

    def __init__(self, dim: int, dtype: torch.dtype | None = None, device: Any = None) -> None:
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.empty(dim, dtype=dtype, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, W) to (…, W)."""
        return F.layer_norm(x, x.shape[-1:], weight=comfy.ops.cast_to_input(self.gamma, x))


class RMSNorm(LayerNorm):
    """Normalisation by the root of the mean square, with the same name of its scale."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, W) to (…, W)."""
        return F.rms_norm(x, x.shape[-1:], weight=comfy.ops.cast_to_input(self.gamma, x))


class DynamicTanh(torch.nn.Module):
    """What stands in place of a norm: a tanh of the values, stretched before, scaled and shifted after."""

    def __init__(self, dim: int, dtype: torch.dtype | None = None, device: Any = None) -> None:
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.empty(1, dtype=dtype, device=device))
        self.gamma, self.beta = (torch.nn.Parameter(torch.empty(dim, dtype=dtype, device=device)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, W) to (…, W)."""
        alpha, gamma, beta = (comfy.ops.cast_to_input(value, x) for value in (self.alpha, self.gamma, self.beta))
        return torch.addcmul(beta, torch.tanh(alpha * x), gamma)


NORMS: Mapping[str, type[torch.nn.Module]] = {"layer_norm": LayerNorm, "rms_norm": RMSNorm}
NORMS_OF_HEADS: Mapping[str, type[torch.nn.Module]] = {"rms": RMSNorm, "dyt": DynamicTanh}


class GLU(torch.nn.Module):
    """A linear layer, half of whose values gate the others by *activation*."""

    def __init__(
        self, dim_in: int, dim_out: int, activation: Activation = F.silu, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.act = activation
        self.proj = operations.Linear(dim_in, dim_out * 2, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        values, gate = self.proj(x).chunk(2, dim=-1)
        return values * self.act(gate)


class RotaryEmbedding(torch.nn.Module):
    """Angles of the tokens' places, from the frequencies in the file."""

    def __init__(self, dim: int, dtype: torch.dtype | None = None, device: Any = None) -> None:
        super().__init__()
        self.inv_freq = torch.nn.Parameter(torch.empty(dim // 2, dtype=dtype, device=device))

    def forward(self, tokens: int, device: torch.device) -> torch.Tensor:
        """N x dim, float32; the second half repeats the first."""
        places = torch.arange(tokens, device=device, dtype=torch.float32)
        angles = torch.outer(places, comfy.ops.cast_to_input(self.inv_freq, places))
        return torch.cat((angles, angles), dim=-1)


def apply_rotary_pos_emb(t: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """*t* (B x heads x N x D) with as many of a head's values turned as *freqs* (N x values) has; in float32, returned in *t*'s dtype."""
    turned, rest = t[..., : freqs.shape[-1]].float(), t[..., freqs.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * freqs.cos() + torch.cat((-second, first), dim=-1) * freqs.sin()
    return torch.cat((turned.to(t.dtype), rest), dim=-1)


class FeedForward(torch.nn.Module):
    """A gated wider layer and a narrower one."""

    def __init__(
        self, dim: int, mult: int = 4, activation: Activation = F.silu, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        wide = GLU(dim, dim * mult, activation, dtype=dtype, device=device, operations=operations)
        narrow = operations.Linear(dim * mult, dim, dtype=dtype, device=device)
        self.ff = torch.nn.Sequential(wide, torch.nn.Identity(), narrow, torch.nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, W) to (…, W)."""
        return self.ff(x)


class Attention(torch.nn.Module):
    """Attention of tokens to themselves, or to a context of *dim_context* values, which then may have fewer heads.

    *qk_norm* "ln", "rms" or "dyt" normalises queries and keys; *differential* takes the result of second queries and keys off that of the
    first; *feat_scale* weighs the mean of the result and what differs from it.
    """

    def __init__(
        self,
        dim: int,
        dim_heads: int = 64,
        dim_context: int | None = None,
        qk_norm: str = "none",
        differential: bool = False,
        feat_scale: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        source, pairs = dim_context or dim, 1 + differential
        self.dim, self.dim_heads, self.num_heads, self.kv_heads = dim, dim_heads, dim // dim_heads, source // dim_heads
        self.qk_norm, self.differential, self.feat_scale = qk_norm, differential, feat_scale
        if dim_context is None:
            self.to_qkv = operations.Linear(dim, dim * (2 * pairs + 1), bias=False, **kept)
        else:
            self.to_q = operations.Linear(dim, dim * pairs, bias=False, **kept)
            self.to_kv = operations.Linear(source, source * (pairs + 1), bias=False, **kept)
        self.to_out = operations.Linear(dim, dim, bias=False, **kept)
        if qk_norm == "ln":
            self.q_norm = operations.LayerNorm(dim_heads, eps=1e-6, **kept)
            self.k_norm = operations.LayerNorm(dim_heads, eps=1e-6, **kept)
        elif qk_norm != "none":
            self.q_norm, self.k_norm = (NORMS_OF_HEADS[qk_norm](dim_heads, **kept) for _ in range(2))
        if feat_scale:
            self.lambda_dc = torch.nn.Parameter(torch.empty(dim, **kept))
            self.lambda_hf = torch.nn.Parameter(torch.empty(dim, **kept))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        rotary_pos_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* B x N x W, *context* B x tokens x width, *rotary_pos_emb* N x values (of no effect with a context)."""
        pairs, value = self._pairs(x, context)
        turns = rotary_pos_emb if context is None else None
        results = [self._attend(query, key, value, turns, transformer_options or {}) for query, key in pairs]
        out = self.to_out(results[0] - results[1] if self.differential else results[0])
        if self.feat_scale:
            mean = out.mean(dim=-2, keepdim=True)
            weights = (comfy.ops.cast_to_input(weight, out) for weight in (self.lambda_dc, self.lambda_hf))
            out = out + next(weights) * mean + next(weights) * (out - mean)
        return out

    def _pairs(self, x: torch.Tensor, context: torch.Tensor | None) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Queries with their keys, and the values: B x heads x N x D each."""
        count = 1 + self.differential
        if context is None:
            parts = self.to_qkv(x).chunk(2 * count + 1, dim=-1)
            query, key, value, *others = (self._by_head(part) for part in parts)
            return [(query, key), *zip(others[::2], others[1::2], strict=True)], value
        queries = [self._by_head(part) for part in self.to_q(x).chunk(count, dim=-1)]
        *keys, value = (self._by_head(part) for part in self.to_kv(context).chunk(count + 1, dim=-1))
        return list(zip(queries, keys, strict=True)), value

    def _by_head(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(-1, (-1, self.dim_heads)).transpose(1, 2)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, turns: torch.Tensor | None, options: Options
    ) -> torch.Tensor:
        if self.qk_norm != "none":
            query, key = self.q_norm(query), self.k_norm(key)
        if turns is not None:
            query, key = apply_rotary_pos_emb(query, turns), apply_rotary_pos_emb(key, turns)
        return self.compute(query, key, value, options)

    def compute(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Options, **masked: Any) -> torch.Tensor:
        """What *query* takes of *value* (B x heads x N x D each): B x N x W; *masked*: further arguments of attention functions."""
        grouped = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
        return comfy.ldm.modules.attention.optimized_attention(
            query,
            key,
            value,
            self.num_heads,
            skip_reshape=True,
            low_precision_attention=False,
            transformer_options=options,
            **grouped,
            **masked,
        )


class TransformerBlock(torch.nn.Module):
    """Attention to itself, to the context, and a feed-forward layer.

    *global_cond_shared_embed*: attention to itself and the last layer are scaled, shifted and gated by a vector of ``6 * dim`` values that
    all blocks share, to which each adds values of its own. *local_add_cond_dim*: values of each place that are added before the last layer.
    """

    def __init__(
        self,
        dim: int,
        dim_heads: int,
        dim_context: int,
        norm_type: str = "layer_norm",
        global_cond_shared_embed: bool = False,
        local_add_cond_dim: int | None = None,
        attn_kwargs: Mapping[str, Any] | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        made, norm = {**kept, "operations": operations}, NORMS[norm_type]
        self.global_cond_shared_embed, self.local_add_cond_dim = global_cond_shared_embed, local_add_cond_dim
        self.pre_norm = norm(dim, **kept)
        self.self_attn = Attention(dim, dim_heads, **made, **(attn_kwargs or {}))
        self.cross_attend_norm = norm(dim, **kept)
        self.cross_attn = Attention(dim, dim_heads, dim_context, **made, **(attn_kwargs or {}))
        self.ff_norm = norm(dim, **kept)
        self.ff = FeedForward(dim, **made)
        if global_cond_shared_embed:
            self.to_scale_shift_gate = torch.nn.Parameter(torch.empty(6 * dim, **kept))
        if local_add_cond_dim is not None:
            first = operations.Linear(local_add_cond_dim, dim, **kept)
            self.to_local_embed = torch.nn.Sequential(first, torch.nn.SiLU(), operations.Linear(dim, dim, **kept))

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        rotary_pos_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        global_cond: torch.Tensor | None = None,
        local_add_cond: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """B x N x W to B x N x W; *global_cond* B x 6 W, *local_add_cond* B x places x values, for the last places of *x*."""
        attended, fed = self._modulations(global_cond)
        x = x + attended(self.pre_norm(x), lambda tokens: self.self_attn(tokens, None, rotary_pos_emb, transformer_options))
        if context is not None:
            x = x + self.cross_attn(self.cross_attend_norm(x), context, transformer_options=transformer_options)
        if local_add_cond is not None and self.local_add_cond_dim is not None:
            x = x + at_the_end(self.to_local_embed(local_add_cond), x.shape[1])
        return x + fed(self.ff_norm(x), self.ff)

    def _modulations(self, global_cond: torch.Tensor | None) -> tuple[Any, Any]:
        """What surrounds attention to itself, and what the last layer: functions of tokens and a layer."""
        if global_cond is None or not self.global_cond_shared_embed:
            return _plain, _plain
        parts = (comfy.ops.cast_to_input(self.to_scale_shift_gate, global_cond) + global_cond)[:, None].chunk(6, dim=-1)
        return _modulated(*parts[:3]), _modulated(*parts[3:])


def _plain(tokens: torch.Tensor, layer: Any) -> torch.Tensor:
    return layer(tokens)


def _modulated(scale: torch.Tensor, shift: torch.Tensor, gate: torch.Tensor) -> Any:
    return lambda tokens, layer: layer(tokens * (1 + scale) + shift) * torch.sigmoid(1 - gate)


def at_the_end(values: torch.Tensor, places: int) -> torch.Tensor:
    """The last *places* of *values* (B x N x W), after zeros where there are fewer."""
    return F.pad(values, (0, 0, max(0, places - values.shape[1]), 0))[:, -places:]
