"""Attention in pieces of queries and keys, under the name packs import.

After Rabe and Staats, "Self-attention does not need O(n²) memory" (2021): each piece of keys gives sums weighted relative to its own
largest score; pieces are joined by rescaling them to the largest of all.
"""

from typing import Any

import torch


def efficient_dot_product_attention(
    query: torch.Tensor,
    key_t: torch.Tensor,
    value: torch.Tensor,
    query_chunk_size: int = 1024,
    kv_chunk_size: int | None = None,
    kv_chunk_size_min: int | None = None,
    use_checkpoint: bool = True,
    upcast_attention: bool = False,
    mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Attention of *query* (B x tokens x width) over *key_t* (B x width x keys) and *value* (B x keys x width), B being batch times heads.

    The result has *query*'s shape and *value*'s dtype. *mask* is added to the scores (boolean: False is left out). *kv_chunk_size*: keys
    at a time, by default the root of their number, at least *kv_chunk_size_min*. *upcast_attention* computes scores in float32.
    Gradients are not saved in pieces, so *use_checkpoint* changes nothing.
    """
    keys = key_t.shape[-1]
    step = kv_chunk_size or max(int(keys**0.5), kv_chunk_size_min or 1)
    precision = torch.float32 if upcast_attention else query.dtype
    pieces = []
    for rows in _slices(query.shape[-2], query_chunk_size):
        queries = query[:, rows].to(precision) * query.shape[-1] ** -0.5
        pieces.append(_joined(queries, key_t, value, None if mask is None else _part(mask, 1, rows), _slices(keys, step)))
    return torch.cat(pieces, dim=1).to(value.dtype)


def _joined(
    queries: torch.Tensor, key_t: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, columns: list[slice]
) -> torch.Tensor:
    """The rows of the result for *queries*, which are scaled, over all *columns* of keys."""
    largest = total = weighed = None
    for part in columns:
        scores = queries @ key_t[..., part].to(queries.dtype)
        if mask is not None:
            own = _part(mask, 2, part)
            scores = scores.masked_fill(~own, -torch.finfo(scores.dtype).max) if own.dtype == torch.bool else scores + own
        top = scores.amax(dim=-1, keepdim=True)
        top = top if largest is None else torch.maximum(top, largest)
        top = top.clamp(min=-torch.finfo(scores.dtype).max)  # a row that is masked with -inf throughout
        weights = (scores - top).exp()
        sums, values = weights.sum(dim=-1, keepdim=True), weights.to(value.dtype) @ value[:, part]
        if largest is not None and total is not None and weighed is not None:
            faded = (largest - top).exp()
            sums, values = sums + total * faded, values + weighed * faded.to(values.dtype)
        largest, total, weighed = top, sums, values
    assert total is not None and weighed is not None, "attention has keys"
    return weighed / total.to(weighed.dtype)


def _slices(count: int, step: int) -> list[slice]:
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]


def _part(mask: torch.Tensor, dim: int, part: slice) -> torch.Tensor:
    """*part* of *mask* (B or 1 x tokens or 1 x keys) along *dim*."""
    return mask if mask.shape[dim] == 1 else mask.narrow(dim, part.start, part.stop - part.start)
