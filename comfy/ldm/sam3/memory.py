"""What a tracker remembers of frames, and how it looks back at it.

Shapes: B batch (buckets of things in SAM 3.1), N tokens of the present frame, K remembered ones, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.sam3.prompts import apply_layers
from comfy.ldm.sam3.sam import PositionEmbeddingSine, SAMAttention, layers_of, rope_2d
from comfy.ops import cast_to_input

PRESENT = 0.1  # how much the places of the present frame's cells count
MASK_CELLS = 16  # pixels that a cell of remembered masks is scaled to


def turned(x: torch.Tensor, turns: torch.Tensor, heads: int, last: int = 0) -> torch.Tensor:
    """*x* (B x N x C) with each head turned by *turns*, which repeat for every frame; not so its *last* tokens."""
    count = x.shape[1] - last
    if count <= 0:
        return x
    frames = -(-count // turns.shape[2])
    split = x[:, :count].unflatten(-1, (heads, -1)).transpose(1, 2)
    split = apply_rope1(split, turns.repeat(1, 1, frames, 1, 1, 1)[:, :, :count])
    return torch.cat([split.transpose(1, 2).flatten(2), x[:, count:]], dim=1)


class RotatedAttention(SAMAttention):
    """Attention of one kind of head with rotary positions."""

    def turned(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, turns: torch.Tensor, last: int = 0) -> torch.Tensor:
        """As ``forward``; the *last* keys have no place."""
        q = turned(self.q_proj(q), turns, self.num_heads)
        k = turned(self.k_proj(k), turns, self.num_heads, last)
        return self.out_proj(optimized_attention(q, k, self.v_proj(v), self.num_heads))


class MemoryAttnLayer(torch.nn.Module):
    """SAM 3's: cells attend to each other and to what is remembered."""

    def __init__(self, d_model: int, num_heads: int, kv_dim: int, dim_ff: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.self_attn = RotatedAttention(d_model, num_heads, **made)
        self.cross_attn_image = RotatedAttention(d_model, num_heads, kv_in_dim=kv_dim, **made)
        self.linear1, self.linear2 = operations.Linear(d_model, dim_ff, **kept), operations.Linear(dim_ff, d_model, **kept)
        self.norm1, self.norm2, self.norm3 = (operations.LayerNorm(d_model, **kept) for _ in range(3))

    def forward(self, x: torch.Tensor, memory: torch.Tensor, keys: torch.Tensor, turns: torch.Tensor, last: int) -> torch.Tensor:
        """B x N x C."""
        normed = self.norm1(x)
        x = x + self.self_attn.turned(normed, normed, normed, turns)
        x = x + self.cross_attn_image.turned(self.norm2(x), keys, memory, turns, last)
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class DecoupledMemoryAttnLayer(torch.nn.Module):
    """SAM 3.1's: queries and keys are sums of what the picture and what the masks say."""

    self_attn_q_proj: Any
    self_attn_k_proj: Any
    self_attn_v_proj: Any
    self_attn_out_proj: Any
    cross_attn_q_proj: Any
    cross_attn_k_proj: Any
    cross_attn_v_proj: Any
    cross_attn_out_proj: Any
    image_cross_attn_q_proj: Any
    image_cross_attn_k_proj: Any

    def __init__(self, d_model: int, num_heads: int, dim_ff: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.num_heads = num_heads
        own = [f"{kind}_{name}_proj" for kind in ("self_attn", "cross_attn") for name in ("q", "k", "v", "out")]
        for name in (*own, "image_cross_attn_q_proj", "image_cross_attn_k_proj"):
            setattr(self, name, operations.Linear(d_model, d_model, **kept))
        self.linear1, self.linear2 = operations.Linear(d_model, dim_ff, **kept), operations.Linear(dim_ff, d_model, **kept)
        self.norm1, self.norm2, self.norm3 = (operations.LayerNorm(d_model, **kept) for _ in range(3))

    def forward(
        self,
        image: torch.Tensor,
        x: torch.Tensor,
        memory: torch.Tensor,
        memory_image: torch.Tensor,
        positions: torch.Tensor,
        turns: torch.Tensor,
        last: int,
    ) -> torch.Tensor:
        """B x N x C. *image* and *memory_image* are the pictures' features of the present and of what is remembered."""
        heads, normed = self.num_heads, self.norm1(x)
        q, k = (turned(project(normed), turns, heads) for project in (self.self_attn_q_proj, self.self_attn_k_proj))
        x = x + self.self_attn_out_proj(optimized_attention(q, k, self.self_attn_v_proj(normed), heads))
        q = self.image_cross_attn_q_proj(image) + self.cross_attn_q_proj(self.norm2(x))
        k = self.image_cross_attn_k_proj(memory_image) + self.cross_attn_k_proj(memory) + positions
        seen = optimized_attention(turned(q, turns, heads), turned(k, turns, heads, last), self.cross_attn_v_proj(memory), heads)
        x = x + self.cross_attn_out_proj(seen)
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))


class MemoryEncoder(torch.nn.Module):
    """Layers that look back, of SAM 3.1 if *decoupled*, else of SAM 3, whose memory has *kv_dim* values per token."""

    def __init__(self, d_model: int, kv_dim: int, dim_ff: int, num_layers: int, decoupled: bool, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.num_heads, self.decoupled = 8 if decoupled else 1, decoupled
        self.layers = torch.nn.ModuleList(
            DecoupledMemoryAttnLayer(d_model, self.num_heads, dim_ff, **made)
            if decoupled
            else MemoryAttnLayer(d_model, self.num_heads, kv_dim, dim_ff, **made)
            for _ in range(num_layers)
        )
        self.norm = operations.LayerNorm(d_model, **kept)

    def forward(
        self,
        cells: torch.Tensor,
        places: torch.Tensor,
        memory: torch.Tensor,
        positions: torch.Tensor,
        pointers: int,
        pictures: Sequence[torch.Tensor] | None,
    ) -> torch.Tensor:
        """*cells* (B x C x H x W) with *places* after looking at *memory* with *positions* (B x K x …), whose last *pointers* have no place
        in a picture. *pictures*: features of the pictures (B x (K - pointers) x C) with their positions, for SAM 3.1."""
        size = (cells.shape[-2], cells.shape[-1])
        turns = rope_2d(*size, cells.shape[1] // self.num_heads, device=cells.device)
        image = cells.flatten(2).mT.expand(len(memory), -1, -1)
        x = image + PRESENT * places.flatten(2).mT
        if pictures is None:
            for layer in self.layers:
                x = layer(x, memory, memory + positions, turns, pointers)
        else:
            features, where = pictures
            features = F.pad(features.expand(len(memory), -1, -1), (0, 0, 0, pointers))
            where = torch.cat([where.expand(len(memory), -1, -1), positions[:, where.shape[1] :]], dim=1)
            for layer in self.layers:
                x = layer(image, x, memory, features, where, turns, pointers)
        return self.norm(x).mT.unflatten(2, size)


class CXBlock(torch.nn.Module):
    """A block of ConvNeXt (Z. Liu et al., 2022)."""

    def __init__(self, dim: int, kernel_size: int = 7, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.dwconv = operations.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **kept)
        self.norm = operations.LayerNorm(dim, **kept)
        self.pwconv1, self.pwconv2 = operations.Linear(dim, 4 * dim, **kept), operations.Linear(4 * dim, dim, **kept)
        self.gamma = torch.nn.Parameter(torch.empty(dim, **kept), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        wide = F.gelu(self.pwconv1(self.norm(self.dwconv(x).movedim(1, -1))))
        return x + (self.pwconv2(wide) * cast_to_input(self.gamma, x)).movedim(-1, 1)


class MemoryBackbone(torch.nn.Module):
    """Masks and the picture's features as memory. *channels*: those of the mask's layers, each of which halves its sides; *in_chans* masks
    come in. *out_dim*: what memory is narrowed to, if it is another width."""

    mask_downsampler: Any
    fuser: Any

    def __init__(self, d_model: int, out_dim: int, in_chans: int, channels: tuple[int, ...], fuser_layers: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        layers: list[torch.nn.Module] = []
        for before, after in zip((in_chans, *channels), channels):
            convolution = operations.Conv2d(before, after, 3, stride=2, padding=1, **kept)
            layers += [convolution, operations.LayerNorm(after, **kept), torch.nn.GELU()]
        self.mask_downsampler, self.fuser = torch.nn.Module(), torch.nn.Module()
        self.mask_downsampler.encoder = torch.nn.Sequential(*layers, operations.Conv2d(channels[-1], d_model, 1, **kept))
        self.pix_feat_proj = operations.Conv2d(d_model, d_model, 1, **kept)
        self.fuser.layers = torch.nn.Sequential(*(CXBlock(d_model, **made) for _ in range(fuser_layers)))
        self.out_proj = operations.Conv2d(d_model, out_dim, 1, **kept) if out_dim != d_model else None
        self.position_encoding = PositionEmbeddingSine(out_dim)

    def forward(self, cells: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(memory B x C x H x W, its places 1 x C x H x W) of *cells* (1 x C x H x W) and *masks* (B x in_chans x …)."""
        size = [side * MASK_CELLS for side in cells.shape[-2:]]
        masks = masks.to(cells)
        if list(masks.shape[-2:]) != size:
            masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False, antialias=True)
        x = self.fuser.layers(self.pix_feat_proj(cells) + apply_layers(self.mask_downsampler.encoder, masks))
        if self.out_proj is not None:
            x = self.out_proj(x)
        return x, self.position_encoding(x)
