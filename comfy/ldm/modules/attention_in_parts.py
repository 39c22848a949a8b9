"""Attention whose scores are never all in memory at once, for cards without fused kernels.

Shapes: B batch, N tokens, C channels, H heads, D head width.
"""

from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
from comfy.ldm.modules.attention_functions import attention_function, broadcast_mask, repeated_heads, upcast_dtype
from comfy.ldm.modules.sub_quadratic_attention import efficient_dot_product_attention
from comfy.residency.platform_facts import is_oom
from comfy.units import MIB

COPIES_OF_SCORES = 3  # scores, softmax, and what the product needs
SHARE_OF_FREE = 0.7
LEAST_BYTES = 64 * MIB
QUERY_ROWS = (4096, 2048, 1024, 512, 256)


@attention_function
def attention_split(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Multi-head attention for as many queries at a time as free memory allows; half as many when it runs out."""
    k, v = repeated_heads(q, k, v)
    precision = upcast_dtype(q.dtype, attn_precision)
    mask, scale = broadcast_mask(mask), options.get("scale") or q.shape[-1] ** -0.5
    keys = k.to(precision).transpose(-1, -2)
    out = torch.empty((*q.shape[:-1], v.shape[-1]), dtype=v.dtype, device=v.device)
    first, rows = 0, _rows_at_a_time(q, k, precision)
    while first < q.shape[-2]:
        rows = min(rows, q.shape[-2] - first)
        try:
            part = slice(first, first + rows)
            out[..., part, :] = _attended(q[..., part, :].to(precision) * scale, keys, v, _rows_of(mask, part))
        except RuntimeError as error:
            if rows == 1 or not is_oom(error):
                raise
            comfy.model_management.soft_empty_cache(True)
            rows = (rows + 1) // 2
        else:
            first += rows
    return out


@attention_function
def attention_sub_quad(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """Multi-head attention for pieces of queries and, where their scores over all keys do not fit, of keys."""
    k, v = repeated_heads(q, k, v)
    batch, heads, _, width = q.shape
    scale = options.get("scale")
    if scale is not None:
        q = q * (scale * width**0.5)
    mask = broadcast_mask(mask)
    if mask is not None:
        mask = mask.expand(batch, heads, *mask.shape[-2:]).flatten(0, 1)
    precision = upcast_dtype(q.dtype, attn_precision)
    fitting = _rows_at_a_time(q, k, precision)
    rows = next((rows for rows in QUERY_ROWS if rows <= fitting), None)
    return efficient_dot_product_attention(
        q.flatten(0, 1),
        k.flatten(0, 1).transpose(-1, -2),
        v.flatten(0, 1),
        query_chunk_size=rows or QUERY_ROWS[-1],
        kv_chunk_size=None if rows is None else k.shape[-2],
        upcast_attention=precision != q.dtype,
        mask=mask,
    ).unflatten(0, (batch, heads))


def _attended(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    scores = queries @ keys
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(dim=-1).to(values.dtype) @ values


def _rows_of(mask: torch.Tensor | None, part: slice) -> torch.Tensor | None:
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., part, :]


def _rows_at_a_time(q: torch.Tensor, k: torch.Tensor, precision: torch.dtype) -> int:
    """For how many queries the scores fit into the memory that is free."""
    free_bytes = max(LEAST_BYTES, comfy.model_management.get_free_memory(q.device) * SHARE_OF_FREE)
    row_bytes = q.shape[0] * q.shape[1] * k.shape[-2] * precision.itemsize * COPIES_OF_SCORES
    return max(1, int(free_bytes // row_bytes))
