"""What SAM 3's parts share, and its eyes: a transformer over patches, most blocks in windows, whose result necks bring to several sizes.

Shapes: B batch, N tokens, C width, H and W sides in cells. N. Carion et al., "SAM 3: Segment Anything with Concepts" (2025); Y. Li et al.,
"Exploring Plain Vision Transformer Backbones for Object Detection" (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.flux.math import apply_rope
from comfy.ldm.modules.attention import optimized_attention

ops = comfy.ops.disable_weight_init
THETA = 10000.0
GLOBAL_BLOCKS = 4  # of the trunk's blocks, evenly spaced, attend over the whole picture
Features = list[torch.Tensor]


class MLP(torch.nn.Module):
    """Linear layers with rectifiers between them."""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        device: Any = None,
        dtype: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        pairs = zip(widths, widths[1:])
        self.layers = torch.nn.ModuleList(operations.Linear(start, end, device=device, dtype=dtype) for start, end in pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """… x input to … x output."""
        *first, last = self.layers
        for layer in first:
            x = F.relu(layer(x))
        return last(x)


class SAMAttention(torch.nn.Module):
    """Attention whose heads may be narrower than its input, and whose keys and values may have another width."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        downsample_rate: int = 1,
        kv_in_dim: int | None = None,
        device: Any = None,
        dtype: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner, source, made = embedding_dim // downsample_rate, kv_in_dim or embedding_dim, {"device": device, "dtype": dtype}
        self.q_proj = operations.Linear(embedding_dim, inner, **made)
        self.k_proj = operations.Linear(source, inner, **made)
        self.v_proj = operations.Linear(source, inner, **made)
        self.out_proj = operations.Linear(inner, embedding_dim, **made)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """B x N x C. *mask*: B x keys, true where there is a token, or something to add to the scores."""
        if mask is not None and mask.ndim == 2:
            mask = mask[:, None, None]
        return self.out_proj(optimized_attention(self.q_proj(q), self.k_proj(k), self.v_proj(v), self.num_heads, mask=mask))


class TwoWayAttentionBlock(torch.nn.Module):
    """Tokens attend to each other and to the picture, then the picture to the tokens."""

    mlp: Any
    norm1: Any
    norm2: Any
    norm3: Any
    norm4: Any

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int = 2048,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
        **made: Any,
    ) -> None:
        super().__init__()
        self.skip_first_layer_pe = skip_first_layer_pe
        operations, kept = layers_of(made)
        self.self_attn = SAMAttention(embedding_dim, num_heads, **made)
        self.cross_attn_token_to_image = SAMAttention(embedding_dim, num_heads, attention_downsample_rate, **made)
        self.cross_attn_image_to_token = SAMAttention(embedding_dim, num_heads, attention_downsample_rate, **made)
        self.mlp = torch.nn.Module()
        self.mlp.lin1, self.mlp.lin2 = operations.Linear(embedding_dim, mlp_dim, **kept), operations.Linear(mlp_dim, embedding_dim, **kept)
        for number in range(1, 5):
            setattr(self, f"norm{number}", operations.LayerNorm(embedding_dim, **kept))

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, query_pe: torch.Tensor, key_pe: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and cells of the picture, each with its positions, to both anew."""
        if self.skip_first_layer_pe:
            queries = self.norm1(self.self_attn(queries, queries, queries))
        else:
            placed = queries + query_pe
            queries = self.norm1(queries + self.self_attn(placed, placed, queries))
        placed_keys = keys + key_pe
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pe, placed_keys, keys))
        queries = self.norm3(queries + self.mlp.lin2(F.relu(self.mlp.lin1(queries))))
        return queries, self.norm4(keys + self.cross_attn_image_to_token(placed_keys, queries + query_pe, queries))


class TwoWayTransformer(torch.nn.Module):
    """Such blocks, and a last look of the tokens at the picture."""

    def __init__(
        self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int, attention_downsample_rate: int = 2, **made: Any
    ) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.layers = torch.nn.ModuleList(
            TwoWayAttentionBlock(embedding_dim, num_heads, mlp_dim, attention_downsample_rate, number == 0, **made)
            for number in range(depth)
        )
        self.final_attn_token_to_image = SAMAttention(embedding_dim, num_heads, attention_downsample_rate, **made)
        self.norm_final_attn = operations.LayerNorm(embedding_dim, **kept)

    def forward(
        self, image_embedding: torch.Tensor, image_pe: torch.Tensor, point_embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells of the picture, their positions and tokens (B x N x C) to tokens and cells."""
        tokens, cells = point_embedding, image_embedding
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, point_embedding, image_pe)
        seen = self.final_attn_token_to_image(tokens + point_embedding, cells + image_pe, cells)
        return self.norm_final_attn(tokens + seen), cells


class PositionEmbeddingRandom(torch.nn.Module):
    """Places as sines and cosines along fixed directions, which the file holds."""

    def __init__(self, num_pos_feats: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        directions = torch.empty(2, num_pos_feats, device=device, dtype=dtype)
        self.positional_encoding_gaussian_matrix = torch.nn.Parameter(directions, requires_grad=False)

    def encode(self, places: torch.Tensor) -> torch.Tensor:
        """Places (… x 2, from 0 to 1) to … x C, in their dtype."""
        directions = self.positional_encoding_gaussian_matrix.to(places.device, torch.float32)
        turned = (2 * places.float() - 1) @ directions * (2 * math.pi)
        return torch.cat([turned.sin(), turned.cos()], dim=-1).to(places.dtype)

    def forward(self, size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
        """The middles of *size* cells: 1 x C x H x W, where and as *like*."""
        ys, xs = ((torch.arange(side, device=like.device) + 0.5) / side for side in size)
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
        return self.encode(grid).permute(2, 0, 1)[None].to(like)


class PositionEmbeddingSine(torch.nn.Module):
    """Places as sines of falling frequency, as DETR has them: half of *num_pos_feats* for each direction. Without weights."""

    def __init__(self, num_pos_feats: int = 256) -> None:
        super().__init__()
        self.count = num_pos_feats // 2

    def along(self, values: torch.Tensor) -> torch.Tensor:
        """… (from 0 to 1) to … x count, float32: sines and cosines take turns."""
        steps = torch.arange(self.count, device=values.device) // 2 * 2 / self.count
        angles = values.float().unsqueeze(-1) * (2 * math.pi) / THETA**steps
        return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Those of the cells of *x* (B x C x H x W): 1 x 2·count x H x W, in its dtype."""
        rows, columns = (self.along(torch.arange(side, device=x.device) / (side - 1 + 1e-6)) for side in x.shape[-2:])
        height, width = x.shape[-2:]
        both = (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1))
        return torch.cat(both, dim=-1).permute(2, 0, 1)[None].to(x)


def rope_2d(height: int, width: int, dim: int, scale: float = 1.0, device: Any = None) -> torch.Tensor:
    """The rotations of *height* x *width* cells whose neighbours are *scale* apart: 1 x 1 x N x dim/2 x 2 x 2."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) * scale for side in (height, width)), indexing="ij")
    ids = torch.stack([columns, rows], dim=-1).flatten(0, 1)[None]
    return EmbedND(dim, THETA, [dim // 2, dim // 2])(ids)


class Attention(torch.nn.Module):
    """Attention with rotary positions, over one weight for queries, keys and values."""

    def __init__(self, dim: int, num_heads: int, device: Any = None, dtype: Any = None, operations: Any = ops) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = operations.Linear(dim, dim * 3, device=device, dtype=dtype)
        self.proj = operations.Linear(dim, dim, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """B x N x C, turned by *turns*."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = apply_rope(q, k, turns)
        return self.proj(optimized_attention(q, k, v, self.num_heads, skip_reshape=True))


class Block(torch.nn.Module):
    """One block; *window_size* 0: over the whole picture."""

    mlp: Any

    def __init__(
        self, dim: int, num_heads: int, mlp_dim: int, window_size: int, device: Any = None, dtype: Any = None, operations: Any = ops
    ) -> None:
        super().__init__()
        self.window_size = window_size
        made = {"device": device, "dtype": dtype}
        self.norm1, self.norm2 = (operations.LayerNorm(dim, **made) for _ in range(2))
        self.attn = Attention(dim, num_heads, operations=operations, **made)
        self.mlp = torch.nn.Module()
        self.mlp.fc1, self.mlp.fc2 = operations.Linear(dim, mlp_dim, **made), operations.Linear(mlp_dim, dim, **made)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """B x H x W x C."""
        size, side = x.shape[1:3], self.window_size
        normed = self.norm1(x)
        if side:
            normed = F.pad(normed, (0, 0, 0, -size[1] % side, 0, -size[0] % side))
            rows, columns = normed.shape[1] // side, normed.shape[2] // side
            windows = normed.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
            seen = self.attn(windows.flatten(0, 2).flatten(1, 2), turns)
            seen = seen.unflatten(1, (side, side)).unflatten(0, (-1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
            seen = seen[:, : size[0], : size[1]]
        else:
            seen = self.attn(normed.flatten(1, 2), turns).unflatten(1, size)
        x = x + seen
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class ViTDet(torch.nn.Module):
    """The trunk. It was first trained on pictures of *pretrain_grid* cells each way; windows have that size, and places repeat after it."""

    patch_embed: Any

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        patch_size: int,
        pretrain_grid: int,
        device: Any = None,
        dtype: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        made = {"device": device, "dtype": dtype}
        self.pretrain_grid, self.head = pretrain_grid, embed_dim // num_heads
        self.patch_embed = torch.nn.Module()
        self.patch_embed.proj = operations.Conv2d(3, embed_dim, patch_size, stride=patch_size, bias=False, **made)
        self.pos_embed = torch.nn.Parameter(torch.empty(1, pretrain_grid**2 + 1, embed_dim, **made), requires_grad=False)
        self.ln_pre = operations.LayerNorm(embed_dim, **made)
        spacing = max(1, depth // GLOBAL_BLOCKS)
        windows = [0 if number % spacing == spacing - 1 else pretrain_grid for number in range(depth)]
        self.blocks = torch.nn.ModuleList(Block(embed_dim, num_heads, mlp_dim, side, operations=operations, **made) for side in windows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 3 x height x width to B x C x H x W."""
        x = self.patch_embed.proj(x).permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        side = self.pretrain_grid
        places = self.pos_embed[:, 1:].to(x).unflatten(1, (side, side))
        places = places.repeat(1, -(-height // side), -(-width // side), 1)[:, :height, :width]
        x = self.ln_pre(x + places)
        whole = rope_2d(height, width, self.head, side / width, x.device)
        part = rope_2d(side, side, self.head, device=x.device)
        for block in self.blocks:
            x = block(x, part if block.window_size else whole)
        return x.permute(0, 3, 1, 2)


class FPNScaleConv(torch.nn.Module):
    """The trunk's result at *scale* times its size."""

    def __init__(self, in_dim: int, out_dim: int, scale: float, device: Any = None, dtype: Any = None, operations: Any = ops) -> None:
        super().__init__()
        self.scale, made = scale, {"device": device, "dtype": dtype}
        if scale == 4.0:
            self.dconv_2x2_0 = operations.ConvTranspose2d(in_dim, in_dim // 2, 2, stride=2, **made)
            self.dconv_2x2_1 = operations.ConvTranspose2d(in_dim // 2, in_dim // 4, 2, stride=2, **made)
        elif scale == 2.0:
            self.dconv_2x2 = operations.ConvTranspose2d(in_dim, in_dim // 2, 2, stride=2, **made)
        self.conv_1x1 = operations.Conv2d(in_dim // max(1, int(scale)), out_dim, 1, **made)
        self.conv_3x3 = operations.Conv2d(out_dim, out_dim, 3, padding=1, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W to B x C x scale·H x scale·W."""
        if self.scale == 4.0:
            x = self.dconv_2x2_1(F.gelu(self.dconv_2x2_0(x)))
        elif self.scale == 2.0:
            x = self.dconv_2x2(x)
        elif self.scale < 1.0:
            x = F.max_pool2d(x, 2)
        return self.conv_3x3(self.conv_1x1(x))


class SAM3VisionBackbone(torch.nn.Module):
    """The trunk and its necks, from the largest size down: for the detector (``convs``), and for following things in videos.

    SAM 3 has one more neck (``sam2_convs``), SAM 3.1 (*multiplex*) two: ``propagation_convs`` for frames that are followed,
    ``interactive_convs`` for prompts. SAM 3's necks make a fourth, smaller size, which nothing uses.
    """

    convs: Any
    sam2_convs: Any
    propagation_convs: Any
    interactive_convs: Any

    def __init__(self, embed_dim: int, d_model: int, multiplex: bool, made: dict[str, Any], **trunk: Any) -> None:
        super().__init__()
        self.trunk = ViTDet(embed_dim, **trunk, **made)
        self.multiplex = multiplex
        self.position_encoding = PositionEmbeddingSine(d_model)
        scales = (4.0, 2.0, 1.0) if multiplex else (4.0, 2.0, 1.0, 0.5)
        for name in ("convs", *(("propagation_convs", "interactive_convs") if multiplex else ("sam2_convs",))):
            setattr(self, name, torch.nn.ModuleList(FPNScaleConv(embed_dim, d_model, scale, **made) for scale in scales))

    def features(self, trunk: torch.Tensor) -> Features:
        """Three sizes for the detector."""
        return self._three(self.convs, trunk)

    def followed(self, trunk: torch.Tensor) -> Features:
        """Three sizes for frames that are followed."""
        return self._three(self.propagation_convs if self.multiplex else self.sam2_convs, trunk)

    def prompted(self, trunk: torch.Tensor) -> Features:
        """Three sizes for prompts."""
        return self._three(self.interactive_convs if self.multiplex else self.sam2_convs, trunk)

    @staticmethod
    def _three(convs: Sequence[torch.nn.Module], trunk: torch.Tensor) -> Features:
        return [conv(trunk) for conv in list(convs)[:3]]


def layers_of(made: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What makes layers, and where and in which dtype they are kept, of the arguments *made* of a part."""
    return made.get("operations", ops), {"device": made.get("device"), "dtype": made.get("dtype")}
