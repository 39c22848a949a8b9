"""SAM 3's encoder, in which cells of the picture look at the prompt, and its decoder, whose queries find what it names.

Shapes: B batch, N tokens, Q queries, C width. The decoder follows DETR (N. Carion et al., 2020) with boxes as anchors (DAB-DETR, 2022)
whose edges bias attention.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.sam3.boxes import corners
from comfy.ldm.sam3.sam import MLP, PositionEmbeddingSine, SAMAttention, layers_of
from comfy.ops import cast_to_input

HEADS = 8
RPB_SCALE = 8.0
EPSILON = 1e-6


class EncoderLayer(torch.nn.Module):
    """Cells attend to each other and to the prompt."""

    def __init__(self, d_model: int, dim_ff: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.self_attn = SAMAttention(d_model, HEADS, **made)
        self.cross_attn_image = SAMAttention(d_model, HEADS, **made)
        self.linear1, self.linear2 = operations.Linear(d_model, dim_ff, **kept), operations.Linear(dim_ff, d_model, **kept)
        self.norm1, self.norm2, self.norm3 = (operations.LayerNorm(d_model, **kept) for _ in range(3))

    def forward(
        self, x: torch.Tensor, pos: torch.Tensor | None, memory: torch.Tensor, mask: torch.Tensor | None = None, keys: Any = None
    ) -> torch.Tensor:
        """*x* with places *pos* (None: none), looking at *memory*; *keys* stand for its keys if given."""
        normed = self.norm1(x)
        placed = normed if pos is None else normed + pos
        x = x + self.self_attn(placed, placed, normed)
        x = x + self.cross_attn_image(self.norm2(x), memory if keys is None else keys, memory, mask)
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class DecoderLayer(torch.nn.Module):
    """Queries attend to each other, the prompt and the picture."""

    def __init__(self, d_model: int, dim_ff: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.self_attn, self.cross_attn, self.ca_text = (SAMAttention(d_model, HEADS, **made) for _ in range(3))
        self.norm1, self.norm2, self.norm3, self.catext_norm = (operations.LayerNorm(d_model, **kept) for _ in range(4))
        self.linear1, self.linear2 = operations.Linear(d_model, dim_ff, **kept), operations.Linear(dim_ff, d_model, **kept)

    def forward(
        self,
        x: torch.Tensor,
        x_pos: torch.Tensor,
        memory: torch.Tensor,
        memory_keys: torch.Tensor,
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        """B x Q x C."""
        placed = x + x_pos
        x = self.norm2(x + self.self_attn(placed, placed, x))
        if text is not None:
            x = self.catext_norm(x + self.ca_text(x + x_pos, text, text, text_mask))
        x = self.norm1(x + self.cross_attn(x + x_pos, memory_keys, memory, bias))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class TransformerDecoder(torch.nn.Module):
    """Queries, each with a box that every layer corrects, and one token that says whether there is anything."""

    def __init__(self, d_model: int, dim_ff: int, num_layers: int, num_queries: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.layers = torch.nn.ModuleList(DecoderLayer(d_model, dim_ff, **made) for _ in range(num_layers))
        self.norm = operations.LayerNorm(d_model, **kept)
        self.query_embed = operations.Embedding(num_queries, d_model, **kept)
        self.reference_points = operations.Embedding(num_queries, 4, **kept)
        self.ref_point_head = MLP(d_model * 2, d_model, d_model, 2, **made)
        self.bbox_embed = MLP(d_model, d_model, 4, 3, **made)
        self.boxRPB_embed_x, self.boxRPB_embed_y = (MLP(2, d_model, HEADS, 2, **made) for _ in range(2))
        self.presence_token = operations.Embedding(1, d_model, **kept)
        self.presence_token_head = MLP(d_model, d_model, 1, 3, **made)
        self.presence_token_out_norm = operations.LayerNorm(d_model, **kept)
        self.places = PositionEmbeddingSine(d_model)

    def _bias(self, boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """What the distance of each cell from the box's edges adds to attention: B x heads x (1 + Q) x cells, none for the first token."""
        edges = corners(boxes)
        sums = []
        for side, first, embed in ((height, 1, self.boxRPB_embed_y), (width, 0, self.boxRPB_embed_x)):
            places = torch.arange(side, device=boxes.device, dtype=torch.float32) / side
            away = (places[None, None, :, None] - edges[:, :, None, first::2]) * RPB_SCALE
            sums.append(embed((away.sign() * (away.abs() + 1).log2() / math.log2(RPB_SCALE)).to(boxes.dtype)))
        rows, columns = sums
        bias = (rows.unsqueeze(3) + columns.unsqueeze(2)).flatten(2, 3).permute(0, 3, 1, 2)
        return F.pad(bias, (0, 0, 1, 0))

    def forward(
        self,
        memory: torch.Tensor,
        memory_pos: torch.Tensor,
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        size: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(queries B x Q x C, boxes B x Q x 4 as middle and size, the first token's word B x 1)."""
        batch = len(memory)
        tokens, queries, points = (
            cast_to_input(part.weight, memory).expand(batch, -1, -1)
            for part in (self.presence_token, self.query_embed, self.reference_points)
        )
        boxes, x, keys = points.sigmoid(), torch.cat([tokens, queries], dim=1), memory + memory_pos
        for layer in self.layers:
            # as ComfyUI: the horizontal place first, where transformers has the vertical one
            x_pos = F.pad(self.ref_point_head(self.places.along(boxes).flatten(-2).to(boxes.dtype)), (0, 0, 1, 0))
            x = layer(x, x_pos, memory, keys, text, text_mask, self._bias(boxes, *size))
            previous, found = boxes, self.norm(x[:, 1:])
            boxes = (_inverse_sigmoid(previous) + self.bbox_embed(found)).sigmoid()
        presence = self.presence_token_head(self.presence_token_out_norm(x[:, :1]))
        return found, boxes, presence.squeeze(-1)


def _inverse_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x / (1 - x + EPSILON) + EPSILON)


class Transformer(torch.nn.Module):
    """Encoder and decoder."""

    encoder: Any

    def __init__(self, d_model: int, dim_ff: int, enc_layers: int, dec_layers: int, num_queries: int, **made: Any) -> None:
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.layers = torch.nn.ModuleList(EncoderLayer(d_model, dim_ff, **made) for _ in range(enc_layers))
        self.decoder = TransformerDecoder(d_model, dim_ff, dec_layers, num_queries, **made)
