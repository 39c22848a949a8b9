"""The layers of Krea 2's network, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens of text and pictures, T tokens of text, L layers of the text model, C width of a token.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.ldm.flux.math import apply_rope
from comfy.ldm.modules.attention import optimized_attention_masked

Options = dict[str, Any]


class RMSNorm(torch.nn.Module):
    """Divides by the root of the mean square and scales by one more than ``scale``, in float32."""

    def __init__(self, features: int, eps: float = 1e-5, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.eps = eps
        self.scale = torch.nn.Parameter(torch.empty(features, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, features), in the dtype of *x*."""
        wide = x.float()
        weight = comfy.ops.cast_to(self.scale, torch.float32, x.device) + 1
        return F.rms_norm(wide, wide.shape[-1:], weight, self.eps).to(x.dtype)


class QKNorm(torch.nn.Module):
    """A norm for queries and one for keys."""

    def __init__(self, dim: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.qnorm, self.knorm = (RMSNorm(dim, device=device, dtype=dtype, operations=operations) for _ in range(2))

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, normalised along their last dimension."""
        return self.qnorm(q), self.knorm(k)


class SwiGLU(torch.nn.Module):
    """A wider layer, gated by another. Its inside is two thirds of *features*, *multiplier* times, rounded up to *multiple*."""

    def __init__(
        self,
        features: int,
        multiplier: int,
        bias: bool = False,
        multiple: int = 128,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        inner = -(-(2 * features // 3 * multiplier) // multiple) * multiple
        kept = {"bias": bias, "device": device, "dtype": dtype}
        self.gate, self.up = (operations.Linear(features, inner, **kept) for _ in range(2))
        self.down = operations.Linear(inner, features, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, features) to the same."""
        result: torch.Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return result


class Attention(torch.nn.Module):
    """Attention of tokens to all, gated; *kvheads* heads of keys and values, each for several of queries."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kvheads: int | None = None,
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.heads, self.kvheads = heads, heads if kvheads is None else kvheads
        self.headdim = dim // heads
        kept = {"bias": bias, "device": device, "dtype": dtype}
        self.wq = operations.Linear(dim, self.headdim * self.heads, **kept)
        self.wk, self.wv = (operations.Linear(dim, self.headdim * self.kvheads, **kept) for _ in range(2))
        self.gate, self.wo = (operations.Linear(dim, dim, **kept) for _ in range(2))
        self.qknorm = QKNorm(self.headdim, device=device, dtype=dtype, operations=operations)

    def forward(
        self,
        x: torch.Tensor,
        freqs: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same. *freqs*: rotations. *mask*: added to scores.

        In blocks of the picture, ``attn1_patch`` entries of *transformer_options* may change queries, keys, values, rotations and mask, and
        ``attn1_output_patch`` entries what is attended to.
        """
        options: Options = {} if transformer_options is None else transformer_options
        patches = options.get("patches", {}) if "block_index" in options else {}
        q, k, v = (
            layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for layer, heads in ((self.wq, self.heads), (self.wk, self.kvheads), (self.wv, self.kvheads))
        )
        q, k = self.qknorm(q, k)
        for patch in patches.get("attn1_patch", ()):
            out = patch(q, k, v, pe=freqs, attn_mask=mask, extra_options=dict(options))
            q, k, v = out.get("q", q), out.get("k", k), out.get("v", v)
            freqs, mask = out.get("pe", freqs), out.get("attn_mask", mask)
        if freqs is not None:
            q, k = apply_rope(q, k, freqs)
        if self.kvheads != self.heads:
            k, v = (value.repeat_interleave(self.heads // self.kvheads, dim=1) for value in (k, v))
        attended = optimized_attention_masked(q, k, v, self.heads, mask=mask, skip_reshape=True, transformer_options=options)
        for patch in patches.get("attn1_output_patch", ()):
            attended = patch(attended, dict(options))
        result: torch.Tensor = self.wo(attended * self.gate(x).sigmoid())
        return result


class SimpleModulation(torch.nn.Module):
    """Scale and shift: the time's vector and ones of its own."""

    def __init__(self, dim: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.lin = torch.nn.Parameter(torch.empty(2, dim, device=device, dtype=dtype))

    def forward(self, vec: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two of B x 1 x C for the time *vec* (B x 1 x C)."""
        scale, shift = (vec + comfy.ops.cast_to_input(self.lin, vec, copy=False)).chunk(2, dim=1)
        return scale, shift


class DoubleSharedModulation(torch.nn.Module):
    """Scales, shifts and gates of a block: those that the time gives all blocks, and what the block adds."""

    def __init__(self, dim: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.lin = torch.nn.Parameter(torch.empty(6 * dim, device=device, dtype=dtype))

    def forward(self, vec: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Six of B x 1 x C for the time's *vec* (B x 1 x 6C): scale, shift and gate of attention, then of the wider layer."""
        return (vec + comfy.ops.cast_to_input(self.lin, vec, copy=False)).chunk(6, dim=-1)


class TextFusionBlock(torch.nn.Module):
    """Attention and a wider layer."""

    def __init__(
        self,
        features: int,
        heads: int,
        multiplier: int,
        bias: bool = False,
        kvheads: int | None = None,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype, "operations": operations}
        self.prenorm, self.postnorm = (RMSNorm(features, **kept) for _ in range(2))
        self.attn = Attention(features, heads, kvheads=kvheads, bias=bias, **kept)
        self.mlp = SwiGLU(features, multiplier, bias, **kept)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, transformer_options: Options | None = None) -> torch.Tensor:
        """B x N x C to the same."""
        x = x + self.attn(self.prenorm(x), mask=mask, transformer_options=transformer_options)
        result: torch.Tensor = x + self.mlp(self.postnorm(x))
        return result


class TextFusionTransformer(torch.nn.Module):
    """Makes one vector per token of the states of several layers: attention among a token's states, a weighted sum, attention among
    tokens."""

    def __init__(
        self,
        num_txt_layers: int,
        txt_dim: int,
        heads: int,
        multiplier: int,
        bias: bool = False,
        kvheads: int | None = None,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        sizes = txt_dim, heads, multiplier, bias, kvheads, device, dtype, operations
        self.layerwise_blocks = torch.nn.ModuleList(TextFusionBlock(*sizes) for _ in range(2))
        self.projector = operations.Linear(num_txt_layers, 1, bias=False, device=device, dtype=dtype)
        self.refiner_blocks = torch.nn.ModuleList(TextFusionBlock(*sizes) for _ in range(2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, transformer_options: Options | None = None) -> torch.Tensor:
        """B x T x L x C to B x T x C."""
        states = x.flatten(0, 1).contiguous()
        for block in self.layerwise_blocks:
            states = block(states, transformer_options=transformer_options)
        tokens: torch.Tensor = self.projector(states.unflatten(0, x.shape[:2]).transpose(2, 3)).squeeze(-1)
        for block in self.refiner_blocks:
            tokens = block(tokens, mask=mask, transformer_options=transformer_options)
        return tokens


class SingleStreamBlock(torch.nn.Module):
    """Attention and a wider layer over text and pictures, shifted, scaled and gated by the time."""

    def __init__(
        self,
        features: int,
        heads: int,
        multiplier: int,
        bias: bool = False,
        kvheads: int | None = None,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype, "operations": operations}
        self.mod = DoubleSharedModulation(features, **kept)
        self.prenorm, self.postnorm = (RMSNorm(features, **kept) for _ in range(2))
        self.attn = Attention(features, heads, kvheads=kvheads, bias=bias, **kept)
        self.mlp = SwiGLU(features, multiplier, bias, **kept)

    def forward(
        self,
        x: torch.Tensor,
        vec: torch.Tensor,
        freqs: torch.Tensor,
        mask: torch.Tensor | None = None,
        timestep_zero_index: int | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """B x N x C to the same. Tokens from *timestep_zero_index* on are at time 0, for which *vec* has a second half of rows."""
        scale, shift, gate, wide_scale, wide_shift, wide_gate = self.mod(vec)
        changed = at_times(self.prenorm(x), timestep_zero_index, scale + 1, shift)
        x = x + at_times(self.attn(changed, freqs, mask, transformer_options=transformer_options), timestep_zero_index, gate)
        changed = at_times(self.postnorm(x), timestep_zero_index, wide_scale + 1, wide_shift)
        return x + at_times(self.mlp(changed), timestep_zero_index, wide_gate)


def at_times(x: torch.Tensor, zero_from: int | None, scale: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
    """*x* (B x N x C) scaled and shifted; tokens from *zero_from* on by the second half of the rows of *scale* and *shift*."""
    if zero_from is None:
        return x * scale if shift is None else torch.addcmul(shift, x, scale)
    halves: Sequence[torch.Tensor] = (x[:, :zero_from], x[:, zero_from:])
    shifts = (None, None) if shift is None else shift.chunk(2)
    return torch.cat([at_times(half, None, own, by) for half, own, by in zip(halves, scale.chunk(2), shifts)], dim=1)


class LastLayer(torch.nn.Module):
    """A norm, scaled and shifted by the time, and the values of a patch."""

    def __init__(self, features: int, patch: int, channels: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype}
        self.norm = RMSNorm(features, **kept, operations=operations)
        self.linear = operations.Linear(features, patch * patch * channels, bias=True, **kept)
        self.modulation = SimpleModulation(features, **kept, operations=operations)

    def forward(self, x: torch.Tensor, tvec: torch.Tensor) -> torch.Tensor:
        """B x N x C to B x N x values of a patch, at the time *tvec* (B x 1 x C)."""
        scale, shift = self.modulation(tvec)
        result: torch.Tensor = self.linear(torch.addcmul(shift, self.norm(x), scale + 1))
        return result
