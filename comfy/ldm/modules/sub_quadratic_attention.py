"""Attention that needs little memory, under the name packs import; torch's fused kernels do not need to be told the pieces."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention


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

    The result has *query*'s shape. *mask* is added to the scores. The sizes of pieces have no effect on the result and are not needed.
    """
    key = key_t.transpose(-1, -2)
    if upcast_attention:
        query, key = query.float(), key.float()
        return F.scaled_dot_product_attention(query, key, value.float(), attn_mask=mask).to(value.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
