"""Stable Audio's network (Open 1.0 and its relatives) in ComfyUI's tree, hooks and published weight names.

Shapes: B batch, C channels of a latent, T places of it, N tokens, W width of a token. Networks of Stable Audio 3 are
:mod:`comfy.placeholders`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
import comfy.ops
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.placeholders import placeholders

Options = dict[str, Any]

TIME_FEATURES = 256
LEAST_TURNED = 32  # of a head's values; else half of them


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


class GLU(torch.nn.Module):
    """A linear layer, half of whose values gate the others by SiLU."""

    def __init__(self, dim_in: int, dim_out: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out * 2, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        values, gate = self.proj(x).chunk(2, dim=-1)
        return values * F.silu(gate)


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

    def __init__(self, dim: int, mult: int = 4, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        wide = GLU(dim, dim * mult, dtype=dtype, device=device, operations=operations)
        narrow = operations.Linear(dim * mult, dim, dtype=dtype, device=device)
        self.ff = torch.nn.Sequential(wide, torch.nn.Identity(), narrow, torch.nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, W) to (…, W)."""
        return self.ff(x)


class Attention(torch.nn.Module):
    """Attention of tokens to themselves, or to a context of *dim_context* values, which then may have fewer heads.

    *qk_norm* "ln" normalises queries and keys; *feat_scale* weighs the mean of the result and what differs from it.
    """

    def __init__(
        self,
        dim: int,
        dim_heads: int = 64,
        dim_context: int | None = None,
        qk_norm: str = "none",
        feat_scale: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        source = dim_context or dim
        self.dim, self.dim_heads, self.num_heads, self.kv_heads = dim, dim_heads, dim // dim_heads, source // dim_heads
        self.qk_norm, self.feat_scale = qk_norm, feat_scale
        if dim_context is None:
            self.to_qkv = operations.Linear(dim, dim * 3, bias=False, **kept)
        else:
            self.to_q = operations.Linear(dim, dim, bias=False, **kept)
            self.to_kv = operations.Linear(source, source * 2, bias=False, **kept)
        self.to_out = operations.Linear(dim, dim, bias=False, **kept)
        if qk_norm == "ln":
            self.q_norm = operations.LayerNorm(dim_heads, eps=1e-6, **kept)
            self.k_norm = operations.LayerNorm(dim_heads, eps=1e-6, **kept)
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
        parts = self.to_qkv(x).chunk(3, dim=-1) if context is None else (self.to_q(x), *self.to_kv(context).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (-1, self.dim_heads)).transpose(1, 2) for part in parts)
        if self.qk_norm == "ln":
            query, key = self.q_norm(query), self.k_norm(key)
        if rotary_pos_emb is not None and context is None:
            query, key = apply_rotary_pos_emb(query, rotary_pos_emb), apply_rotary_pos_emb(key, rotary_pos_emb)
        grouped = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
        out = comfy.ldm.modules.attention.optimized_attention(
            query,
            key,
            value,
            self.num_heads,
            skip_reshape=True,
            low_precision_attention=False,
            transformer_options=transformer_options or {},
            **grouped,
        )
        out = self.to_out(out)
        if self.feat_scale:
            mean = out.mean(dim=-2, keepdim=True)
            weights = (comfy.ops.cast_to_input(weight, out) for weight in (self.lambda_dc, self.lambda_hf))
            out = out + next(weights) * mean + next(weights) * (out - mean)
        return out


class TransformerBlock(torch.nn.Module):
    """Attention to itself, to the context, and a feed-forward layer."""

    def __init__(
        self,
        dim: int,
        dim_heads: int,
        dim_context: int,
        attn_kwargs: Mapping[str, Any] | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        made = {**kept, "operations": operations}
        self.pre_norm = LayerNorm(dim, **kept)
        self.self_attn = Attention(dim, dim_heads, **made, **(attn_kwargs or {}))
        self.cross_attend_norm = LayerNorm(dim, **kept)
        self.cross_attn = Attention(dim, dim_heads, dim_context, **made, **(attn_kwargs or {}))
        self.ff_norm = LayerNorm(dim, **kept)
        self.ff = FeedForward(dim, **made)

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        rotary_pos_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """B x N x W to B x N x W."""
        x = x + self.self_attn(self.pre_norm(x), None, rotary_pos_emb, transformer_options)
        if context is not None:
            x = x + self.cross_attn(self.cross_attend_norm(x), context, transformer_options=transformer_options)
        return x + self.ff(self.ff_norm(x))


class ContinuousTransformer(torch.nn.Module):
    """The blocks, between two linear layers. ``patches_replace["dit"]`` replaces ``("double_block", number)``."""

    def __init__(
        self,
        dim: int,
        depth: int,
        dim_in: int,
        dim_out: int,
        dim_heads: int,
        cond_token_dim: int,
        num_memory_tokens: int = 0,
        attn_kwargs: Mapping[str, Any] | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.project_in = operations.Linear(dim_in, dim, bias=False, **kept)
        self.project_out = operations.Linear(dim, dim_out, bias=False, **kept)
        self.rotary_pos_emb = RotaryEmbedding(max(dim_heads // 2, LEAST_TURNED), **kept)
        self.num_memory_tokens = num_memory_tokens
        if num_memory_tokens:
            self.memory_tokens = torch.nn.Parameter(torch.empty(num_memory_tokens, dim, **kept))
        self.layers = torch.nn.ModuleList(
            TransformerBlock(dim, dim_heads, cond_token_dim, attn_kwargs, **kept, operations=operations) for _ in range(depth)
        )

    def forward(self, x: torch.Tensor, first: torch.Tensor, context: torch.Tensor | None, transformer_options: Options) -> torch.Tensor:
        """*x* B x T x values, *first* B x tokens x W, which stand before it: the result without the first tokens."""
        x = torch.cat((first, self.project_in(x)), dim=1)
        if self.num_memory_tokens:
            x = torch.cat((comfy.ops.cast_to_input(self.memory_tokens, x).expand(len(x), -1, -1), x), dim=1)
        turns = self.rotary_pos_emb(x.shape[1], x.device)
        transformer_options |= {"total_blocks": len(self.layers), "block_type": "double"}
        for number, layer in enumerate(self.layers):
            transformer_options["block_index"] = number

            def original(given: Mapping[str, Any], layer: torch.nn.Module = layer) -> dict[str, Any]:
                return {"img": layer(given["img"], given["txt"], given["pe"], given["transformer_options"])}

            given = {"img": x, "txt": context, "vec": None, "pe": turns, "transformer_options": transformer_options}
            x = run_block(transformer_options, ("double_block", number), given, original)["img"]
        return self.project_out(x[:, self.num_memory_tokens + first.shape[1] :])


class AudioDiffusionTransformer(DiffusionTransformer):
    """The network. Time, and how long the sound is to be, are a token before those of the latent.

    Raises ``ValueError`` for settings of Stable Audio 3.
    """

    PATCH_BLOCKS = {"double_block": "blocks"}

    def __init__(
        self,
        io_channels: int = 64,
        embed_dim: int = 1536,
        cond_token_dim: int = 768,
        project_cond_tokens: bool = False,
        global_cond_dim: int = 1536,
        input_concat_dim: int = 0,
        depth: int = 24,
        num_heads: int = 24,
        num_memory_tokens: int = 0,
        attn_kwargs: Mapping[str, Any] | None = None,
        timestep_features_type: str = "learned",
        audio_model: str = "",
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if kwargs or timestep_features_type != "learned":
            raise ValueError("networks of Stable Audio 3's kind are not supported")
        self.dtype, self.cond_token_dim, self.input_concat_dim = dtype, cond_token_dim, input_concat_dim
        kept = {"dtype": dtype, "device": device}
        context, channels = embed_dim if project_cond_tokens else cond_token_dim, io_channels + input_concat_dim

        def embedder(inner: int, outer: int, bias: bool) -> torch.nn.Sequential:
            first, last = (operations.Linear(width, outer, bias=bias, **kept) for width in (inner, outer))
            return torch.nn.Sequential(first, torch.nn.SiLU(), last)

        self.timestep_features = FourierFeatures(1, TIME_FEATURES, **kept)
        self.to_timestep_embed = embedder(TIME_FEATURES, embed_dim, True)
        self.to_cond_embed = embedder(cond_token_dim, context, False)
        self.to_global_embed = embedder(global_cond_dim, embed_dim, False)
        self.transformer = ContinuousTransformer(
            embed_dim,
            depth,
            channels,
            io_channels,
            embed_dim // num_heads,
            context,
            num_memory_tokens,
            attn_kwargs,
            **kept,
            operations=operations,
        )
        self.preprocess_conv = operations.Conv1d(channels, channels, 1, bias=False, **kept)
        self.postprocess_conv = operations.Conv1d(io_channels, io_channels, 1, bias=False, **kept)

    @property
    def blocks(self) -> torch.nn.ModuleList:
        """The blocks that can be replaced."""
        return self.transformer.layers

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor | None = None,
        global_embed: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, global_embed, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor | None = None,
        global_embed: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x C x T, *timestep* B, *context* B x tokens x width of the text encoder, *global_embed* B x values (the two times)."""
        context = None if context is None else self.to_cond_embed(context)
        vector = self.to_timestep_embed(self.timestep_features(timestep[:, None]).to(x.dtype))
        if global_embed is not None:
            vector = vector + self.to_global_embed(global_embed)
        x = self.preprocess_conv(x) + x
        out = self.transformer(x.transpose(1, 2), vector[:, None], context, dict(transformer_options or {})).transpose(1, 2)
        return self.postprocess_conv(out) + out


__getattr__, __dir__ = placeholders(
    __name__, "Stable Audio models", "AbsolutePositionalEmbedding ScaledSinusoidalEmbedding ConformerModule RMSNorm rotate_half()"
)
