"""The layers of Flux.3's network, under the authors' weight names.

Shapes: B batch, N tokens, C width of a token, D width of a head. A mode is the picture, the pictures to look at, or the text.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.ldm.flux.math import apply_rope
from comfy.ldm.modules.attention import optimized_attention

Options = dict[str, Any]
EPS = 1e-6


class Scale(torch.nn.Module):
    """A norm's scale; it divides by the root of the mean square, in float32."""

    def __init__(self, dim: int, dtype: Any = None, device: Any = None) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.empty(dim, dtype=dtype, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, dim) as float32."""
        return F.rms_norm(x.float(), x.shape[-1:], comfy.ops.cast_to(self.scale, torch.float32, x.device), EPS)


class QKNorm(torch.nn.Module):
    """A norm for queries and one for keys."""

    def __init__(self, dim: int, dtype: Any = None, device: Any = None) -> None:
        super().__init__()
        self.query_norm, self.key_norm = (Scale(dim, dtype, device) for _ in range(2))

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both as float32, normalised along their last dimension."""
        return self.query_norm(q), self.key_norm(k)


class Modulation(torch.nn.Module):
    """Shift, scale and gate of one mode, for all blocks of a kind."""

    def __init__(self, dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.lin = operations.Linear(dim, 3 * dim, bias=False, dtype=dtype, device=device)

    def forward(self, vec: torch.Tensor) -> torch.Tensor:
        """B x 1 x 3C for the time *vec* (B x 1 x C), which went through SiLU."""
        result: torch.Tensor = self.lin(vec)
        return result


class ParallelBlock(torch.nn.Module):
    """Attention of tokens to all and a wider layer, gated by its half, of the same input. What shifts, scales and gates may differ among
    the tokens."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 3.0, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept: Options = {"bias": False, "dtype": dtype, "device": device}
        self.heads, inner = heads, int(dim * mlp_ratio)
        self.pre_norm = operations.LayerNorm(dim, eps=EPS, elementwise_affine=False, dtype=dtype, device=device)
        self.q_proj, self.k_proj, self.v_proj, self.attn_out = (operations.Linear(dim, dim, **kept) for _ in range(4))
        self.norm = QKNorm(dim // heads, dtype, device)
        self.mlp_in = operations.Linear(dim, 2 * inner, **kept)
        self.mlp_out = operations.Linear(inner, dim, **kept)

    def forward(self, x: torch.Tensor, mod: torch.Tensor, pe: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """B x N x C to the same. *mod*: (B or 1) x (N or 1) x 3C; *pe*: rotations of the tokens' places."""
        shift, scale, gate = mod.chunk(3, dim=-1)
        normal = torch.addcmul(shift, self.pre_norm(x), 1 + scale)
        q, k, v = (layer(normal).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.norm(q, k)
        q, k = (turned.to(v) for turned in apply_rope(q, k, pe))
        mixed = optimized_attention(q, k, v, self.heads, skip_reshape=True, transformer_options=transformer_options or {})
        gated, value = self.mlp_in(normal).chunk(2, dim=-1)
        wider = self.mlp_out(F.silu(gated) * value)
        return x + gate * (self.attn_out(mixed) + wider)


class LastLayer(torch.nn.Module):
    """A norm, shifted and scaled by the time, and the values of a token."""

    def __init__(self, dim: int, channels: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(dim, eps=EPS, elementwise_affine=False, **kept)
        self.linear = operations.Linear(dim, channels, bias=False, **kept)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(dim, 2 * dim, bias=False, **kept))

    def forward(self, x: torch.Tensor, vec: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x channels, at the time *vec* (B x 1 x C)."""
        shift, scale = self.adaLN_modulation(vec).chunk(2, dim=-1)
        result: torch.Tensor = self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
        return result
