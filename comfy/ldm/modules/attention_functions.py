"""Multi-head attention as functions. Shapes: B batch, N tokens, C channels, H heads, D head width."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.model_management

AttentionFunction = Callable[..., torch.Tensor]


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


def _split_heads(tensor: torch.Tensor, batch: int, heads: int) -> torch.Tensor:
    """To *batch* x heads x N x D; a patch may have cut queries into tiles, whose keys then share their batch (HyperTile)."""
    return tensor.reshape(batch, -1, heads, tensor.shape[-1] // heads).transpose(1, 2)


def _join_heads(tensor_BHND: torch.Tensor) -> torch.Tensor:
    return tensor_BHND.transpose(1, 2).flatten(2)


def _broadcast_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    if mask is not None and mask.ndim == 2:
        mask = mask[None]
    return mask[:, None] if mask is not None and mask.ndim == 3 else mask


@wrap_attn
def attention_pytorch(
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
    """Multi-head attention by torch's fused kernels: B x N x (H·D) in and out, or B x H x N x D where the flags say so.

    *mask*: boolean (True attends) or additive, (B x) (H x) N x N. Keyword arguments ``scale`` and ``enable_gqa`` are passed on. Half
    precision is computed in float32 where ``--force-upcast-attention`` or the system asks for it.
    """
    if not skip_reshape:
        key_heads = k.shape[-1] * heads // q.shape[-1] if kwargs.get("enable_gqa") else heads
        batch = len(q)
        q, k, v = _split_heads(q, batch, heads), _split_heads(k, batch, key_heads), _split_heads(v, batch, key_heads)
    options = {name: kwargs[name] for name in ("scale", "enable_gqa") if name in kwargs}
    mask, kept = _broadcast_mask(mask), q.dtype
    computed = (comfy.model_management.force_upcast_attention_dtype() or {}).get(kept, kept)
    if computed != kept:
        q, k, v = q.to(computed), k.to(computed), v.to(computed)
        mask = mask if mask is None or mask.dtype == torch.bool else mask.to(computed)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options).to(kept)
    return out if skip_output_reshape else _join_heads(out)


@wrap_attn
def attention_basic(
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
    """The same written out; *attn_precision* ``torch.float32`` computes the scores in float32."""
    if not skip_reshape:
        q, k, v = (_split_heads(tensor, len(q), heads) for tensor in (q, k, v))
    precision = attn_precision or q.dtype
    scores = q.to(precision) @ k.to(precision).transpose(-1, -2) * kwargs.get("scale", q.shape[-1] ** -0.5)
    mask = _broadcast_mask(mask)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max) if mask.dtype == torch.bool else scores + mask
    out = scores.softmax(dim=-1).to(v.dtype) @ v
    return out if skip_output_reshape else _join_heads(out)
