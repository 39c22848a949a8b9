"""Rotary positions and the attention over them, as transformers of the Flux kind use them.

Shapes: B batch, H heads, N tokens, D width of a head. Node packs replace ``optimized_attention``, ``attention`` and the rotations here.
"""

from typing import Any

import torch

from comfy.ldm.modules.attention import optimized_attention
from comfy.quantisation import kitchen


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pe: torch.Tensor | None,
    mask: torch.Tensor | None = None,
    transformer_options: dict[str, Any] | None = None,
) -> torch.Tensor:
    """Queries, keys and values (B x H x N x D) attended to, the first two turned by *pe* (None: not): B x N x (H·D)."""
    if pe is not None:
        q, k = apply_rope(q, k, pe)
    return optimized_attention(q, k, v, q.shape[1], skip_reshape=True, mask=mask, transformer_options=transformer_options or {})


def rope(pos: torch.Tensor, dim: int, theta: float) -> torch.Tensor:
    """The rotations of positions *pos* (B x N) over *dim* values: B x N x D/2 x 2 x 2, float32. Raises ``ValueError`` for an odd *dim*."""
    if dim % 2:
        raise ValueError(f"rotary positions turn pairs of values; {dim} is odd")
    exponents = torch.linspace(0, (dim - 2) / dim, dim // 2, dtype=torch.float64, device=pos.device)
    angles = pos.double().unsqueeze(-1) * theta**-exponents
    cosines, sines = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cosines, -sines], -1), torch.stack([sines, cosines], -1)], -2).float()


def apply_rope1(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """*x* (… x N x D) with each pair of neighbouring values turned by *freqs_cis*; in *x*'s dtype.

    Rotations beyond the tokens are left out. On cards that comfy-kitchen has a kernel for, that computes it.
    """
    tokens, known = x.shape[-2], freqs_cis.shape[-4]
    if known > tokens > 1:
        freqs_cis = freqs_cis.narrow(-4, 0, tokens)
    fused = kitchen.fused_rope() if x.device.type == "cuda" and not torch.is_grad_enabled() else None
    if fused is not None:
        return fused(x, freqs_cis)
    pairs = x.to(freqs_cis.dtype).unflatten(-1, (-1, 1, 2))
    turned = freqs_cis[..., 0] * pairs[..., 0]
    return turned.addcmul_(freqs_cis[..., 1], pairs[..., 1]).flatten(-2).type_as(x)


def apply_rope(xq: torch.Tensor, xk: torch.Tensor, freqs_cis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys, both turned; see :func:`apply_rope1`."""
    return apply_rope1(xq, freqs_cis), apply_rope1(xk, freqs_cis)
