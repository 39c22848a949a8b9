"""Multi-head attention as functions. Shapes: B batch, N tokens, C channels, H heads, D head width."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

import comfy.model_management
import comfy.ops
from comfy.cli_args import args

AttentionFunction = Callable[..., torch.Tensor]
LARGEST_BATCH = 1 << 15  # that cards' fused kernels take at once


def wrap_attn(func: AttentionFunction) -> AttentionFunction:
    """Let ``transformer_options["optimized_attention_override"]`` take the place of *func*.

    The override is called with *func* and the call's arguments; attention functions that it calls with those keyword arguments are
    not overridden again.
    """

    @functools.wraps(func)
    def overridable(*args: Any, **kwargs: Any) -> torch.Tensor:
        inside = "_inside_attn_wrapper" in kwargs
        kwargs["_inside_attn_wrapper"] = True
        override = None if inside else (kwargs.get("transformer_options") or {}).get("optimized_attention_override")
        return func(*args, **kwargs) if override is None else override(func, *args, **kwargs)

    return overridable


def attention_function(compute: AttentionFunction) -> AttentionFunction:
    """*compute* as a function with the arguments that all attention functions have, which are taken apart here alone.

    It is called with queries (B x heads x N x D), keys and values (of which there may be fewer heads with ``enable_gqa``), ``mask``,
    ``attn_precision`` and the further arguments by name, and gives B x heads x N x D. Callers give and get B x N x (H·D) unless
    ``skip_reshape`` and ``skip_output_reshape`` say that they have the other form.
    """

    def attend(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        mask: torch.Tensor | None = None,
        attn_precision: torch.dtype | None = None,
        skip_reshape: bool = False,
        skip_output_reshape: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        parts = _split_qkv(q, k, v, heads, skip_reshape, bool(kwargs.get("enable_gqa")))
        out = compute(*parts, mask, attn_precision, kwargs)
        return out if skip_output_reshape else join_heads(out)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(attend, name, getattr(compute, name))
    return wrap_attn(attend)


def _split_qkv(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, is_split: bool, enable_gqa: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All three to B x heads x N x D, which they are already if *is_split*; keys and values may have fewer heads if *enable_gqa*.

    A patch may have cut queries into tiles, whose keys then share their batch (HyperTile).
    """
    if is_split:
        return q, k, v
    batch = len(q)
    key_heads = k.shape[-1] * heads // q.shape[-1] if enable_gqa else heads
    return _split_heads(q, batch, heads), _split_heads(k, batch, key_heads), _split_heads(v, batch, key_heads)


def _split_heads(tensor: torch.Tensor, batch: int, heads: int) -> torch.Tensor:
    return tensor.reshape(batch, -1, heads, tensor.shape[-1] // heads).transpose(1, 2)


def repeated_heads(q_BHND: torch.Tensor, k_BHND: torch.Tensor, v_BHND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values with as many heads as *q_BHND*, each repeated for the queries that share it."""
    times = q_BHND.shape[1] // k_BHND.shape[1]
    return (k_BHND, v_BHND) if times <= 1 else (k_BHND.repeat_interleave(times, 1), v_BHND.repeat_interleave(times, 1))


def join_heads(tensor_BHND: torch.Tensor) -> torch.Tensor:
    """To B x N x (H·D)."""
    return tensor_BHND.transpose(1, 2).flatten(2)


def upcast_dtype(kept: torch.dtype, attn_precision: torch.dtype | None) -> torch.dtype:
    """The dtype to compute scores in of queries in *kept*: what flags or the system force, else *attn_precision*, else their own.

    ``--dont-upcast-attention`` keeps their own in any case.
    """
    if args.dont_upcast_attention:
        return kept
    forced = (comfy.model_management.force_upcast_attention_dtype() or {}).get(kept)
    return forced or attn_precision or kept


def broadcast_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """*mask* as B or 1 x H or 1 x N x N."""
    if mask is not None and mask.ndim == 2:
        mask = mask[None]
    return mask[:, None] if mask is not None and mask.ndim == 3 else mask


@attention_function
def attention_pytorch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Multi-head attention by torch's fused kernels.

    *mask*: boolean (True attends) or additive, (B x) (H x) N x N. Keyword arguments ``scale`` and ``enable_gqa`` are passed on. Half
    precision is computed in float32 where ``--force-upcast-attention`` or the system asks for it.
    """
    own: dict[str, Any] = {name: options[name] for name in ("scale", "enable_gqa") if name in options}
    mask, kept = broadcast_mask(mask), q.dtype
    computed = (comfy.model_management.force_upcast_attention_dtype() or {}).get(kept, kept)
    if computed != kept:
        q, k, v = q.to(computed), k.to(computed), v.to(computed)
        mask = mask if mask is None or mask.dtype == torch.bool else mask.to(computed)
    if len(q) <= LARGEST_BATCH or q.device.type != "cuda":
        return comfy.ops.scaled_dot_product_attention(q, k, v, attn_mask=mask, **own).to(kept)
    return torch.cat([_attended_part(q, k, v, mask, first, own) for first in range(0, len(q), LARGEST_BATCH)]).to(kept)


def _attended_part(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, first: int, options: dict[str, Any]
) -> torch.Tensor:
    part = slice(first, first + LARGEST_BATCH)
    own = mask if mask is None or len(mask) == 1 else mask[part]
    return comfy.ops.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=own, **options)


@attention_function
def attention_basic(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """The same written out; *attn_precision* ``torch.float32`` computes the scores in float32."""
    k, v = repeated_heads(q, k, v)
    precision = upcast_dtype(q.dtype, attn_precision)
    scores = q.to(precision) @ k.to(precision).transpose(-1, -2) * options.get("scale", q.shape[-1] ** -0.5)
    mask = broadcast_mask(mask)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1).to(v.dtype) @ v
