"""The layers of PixelDiT's network for pixels, under ComfyUI's class names and the published weight names.

Shapes: B batch, I patches of a picture, P pixels of a patch, N = B·I, C width of a patch's token, D of a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy.ldm.flux.math import apply_rope, rope
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit import Mlp

Options = dict[str, Any]
EPS = 1e-6
THETA = 10000.0
REACH = 16.0  # the place of the last row and the last column, whatever their number
PERIOD = 10000
CHANGES = 6  # shift, scale and gate of attention, then of the wider layer


def precompute_freqs_cis_2d(
    dim: int,
    height: int,
    width: int,
    theta: float = THETA,
    scale: float = REACH,
    *,
    ref_grid_h: int | None = None,
    ref_grid_w: int | None = None,
    scale_x: float = 1.0,
    scale_y: float = 1.0,
    shift_x: float = 0.0,
    shift_y: float = 0.0,
    device: torch.device | None = None,
    **ignored: Any,
) -> torch.Tensor:
    """Rotations ((height · width) x dim/2 x 2 x 2) of heads of *dim* values, whose pairs turn by column and row in turn.

    *ref_grid_h*, *ref_grid_w*: the numbers of rows and columns that it was trained with; with others the turns slow down accordingly
    (NTK-aware scaling). What follows moves and stretches places, as ``rope_options`` ask for.
    """
    axis = dim // 2
    slower = axis / (axis - 2) if axis > 2 else 0.0
    periods = [theta * (count / (known or count)) ** slower for count, known in ((width, ref_grid_w), (height, ref_grid_h))]
    columns = torch.linspace(shift_x, scale * scale_x + shift_x, width, device=device)
    rows = torch.linspace(shift_y, scale * scale_y + shift_y, height, device=device)
    places = columns.repeat(height), rows.repeat_interleave(width)
    turned = [rope(own[None], axis, period)[0] for own, period in zip(places, periods)]
    return torch.stack(turned, dim=2).flatten(1, 2)


def waves_of_places(width: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """rows x columns x *width*: sines and cosines of the column, then of the row, counted in pixels."""
    quarter = width // 4
    rates = PERIOD ** -(torch.arange(quarter, dtype=torch.float64, device=device) / quarter)

    def waves(count: int) -> torch.Tensor:
        angles = torch.arange(count, dtype=torch.float64, device=device)[:, None] * rates
        return torch.cat((angles.sin(), angles.cos()), dim=1)

    across, down = waves(columns)[None].expand(rows, -1, -1), waves(rows)[:, None].expand(-1, columns, -1)
    return torch.cat((across, down), dim=-1).to(dtype)


class RotaryAttention(torch.nn.Module):
    """Attention of patches to all, with normalised and rotated queries and keys."""

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = operations.Linear(dim, 3 * dim, bias=qkv_bias, **kept)
        self.q_norm, self.k_norm = (operations.RMSNorm(self.head_dim, eps=EPS, **kept) for _ in range(2))
        self.proj = operations.Linear(dim, dim, **kept)

    def forward(self, x: torch.Tensor, pos: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """B x I x width to the same. *pos*: rotations of the patches' places."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = apply_rope(self.q_norm(q), self.k_norm(k), pos[None, None])
        mixed = optimized_attention(q, k, v, self.num_heads, skip_reshape=True, transformer_options=transformer_options or {})
        result: torch.Tensor = self.proj(mixed)
        return result


class FinalLayer(torch.nn.Module):
    """A norm and the colours of a pixel."""

    def __init__(self, hidden_size: int, out_channels: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.norm = operations.RMSNorm(hidden_size, eps=EPS, dtype=dtype, device=device)
        self.linear = operations.Linear(hidden_size, out_channels, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, D) to (…, colours)."""
        result: torch.Tensor = self.linear(self.norm(x))
        return result


class PatchTokenEmbedder(torch.nn.Module):
    """A layer, and with *use_norm* a norm after it."""

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        use_norm: bool = False,
        bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.proj = operations.Linear(in_chans, embed_dim, bias=bias, dtype=dtype, device=device)
        self.norm: Any = operations.RMSNorm(embed_dim, eps=EPS, dtype=dtype, device=device) if use_norm else torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, width)."""
        result: torch.Tensor = self.norm(self.proj(x))
        return result


class PixelTokenEmbedder(torch.nn.Module):
    """Tokens of pixels, which know their places."""

    def __init__(self, in_channels: int, hidden_size_output: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.in_channels, self.hidden_size_output = in_channels, hidden_size_output
        self.proj = operations.Linear(in_channels, hidden_size_output, dtype=dtype, device=device)

    def forward(self, inputs: torch.Tensor, patch_size: int) -> torch.Tensor:
        """B x colours x height x width, whole patches, to N x P x D."""
        height, width = inputs.shape[2:]
        tokens = self.proj(inputs.movedim(1, -1))
        tokens = tokens + waves_of_places(self.hidden_size_output, height, width, tokens.device, tokens.dtype)
        patches: torch.Tensor = tokens.unflatten(2, (-1, patch_size)).unflatten(1, (-1, patch_size)).transpose(2, 3)
        return patches.flatten(3, 4).flatten(0, 2)


class PiTBlock(torch.nn.Module):
    """Attention among patches, each of which is one token of all its pixels, and a wider layer for each pixel. Both are shifted, scaled and
    gated pixel by pixel by what the patch's own token says.
    """

    def __init__(
        self,
        pixel_hidden_size: int,
        patch_hidden_size: int,
        patch_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        attn_hidden_size: int | None = None,
        attn_num_heads: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        mlp_chunks: int = 1,
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.pixel_dim, self.context_dim = pixel_hidden_size, patch_hidden_size
        self.attn_dim, self.num_heads = attn_hidden_size or patch_hidden_size, attn_num_heads or num_heads
        self.mlp_chunks = max(1, mlp_chunks)
        values = patch_size**2 * pixel_hidden_size
        self.compress_to_attn = operations.Linear(values, self.attn_dim, **kept)
        self.expand_from_attn = operations.Linear(self.attn_dim, values, **kept)
        self.norm1, self.norm2 = (operations.RMSNorm(pixel_hidden_size, eps=EPS, **kept) for _ in range(2))
        self.attn = RotaryAttention(self.attn_dim, self.num_heads, operations=operations, **kept)
        self.mlp = Mlp(pixel_hidden_size, int(mlp_ratio * pixel_hidden_size), operations=operations, **kept)
        self.adaLN_modulation = torch.nn.Sequential(operations.Linear(patch_hidden_size, CHANGES * values, **kept))

    def forward(
        self,
        x: torch.Tensor,
        s_cond: torch.Tensor,
        image_height: int,
        image_width: int,
        patch_size: int,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* N x P x D to the same; *s_cond* N x C; sides in pixels."""
        rows, columns = image_height // patch_size, image_width // patch_size
        changes = self.adaLN_modulation(s_cond).unflatten(1, (-1, CHANGES, self.pixel_dim))
        shift, scale, gate, wide_shift, wide_scale, wide_gate = changes.unbind(2)
        normal = torch.addcmul(shift, self.norm1(x), 1 + scale)
        patches = self.compress_to_attn(normal.flatten(1)).unflatten(0, (-1, rows * columns))
        moved: Mapping[str, Any] = (transformer_options or {}).get("rope_options") or {}
        turns = precompute_freqs_cis_2d(self.attn_dim // self.num_heads, rows, columns, device=x.device, **moved)
        mixed = self.expand_from_attn(self.attn(patches, turns, transformer_options).flatten(0, 1))
        x = torch.addcmul(x, gate, mixed.view_as(x))
        normal = torch.addcmul(wide_shift, self.norm2(x), 1 + wide_scale)
        wider = torch.cat([self.mlp(part) for part in normal.chunk(self.mlp_chunks)])  # in parts, as this is where memory peaks
        return torch.addcmul(x, wide_gate, wider)
