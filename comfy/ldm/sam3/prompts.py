"""Masks from points, boxes and masks: SAM's prompt encoder and mask decoder, and SAM 3.1's, which draws many things at once.

A. Kirillov et al., "Segment Anything" (2023); N. Ravi et al., "SAM 2" (2024). Shapes: B batch, C width, M things at once, T masks for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.sam3.sam import MLP, Features, PositionEmbeddingRandom, TwoWayTransformer, layers_of
from comfy.ops import cast_to_input

HEADS = 8
CHOICES = 3  # masks that a prompt may mean
NOTHING = -1024.0  # the mask of what is not there
CLEAR, BIAS = 20.0, -10.0  # how a given mask becomes values before the sigmoid
UNUSED = -1  # the label of a point that stands for none
MASK_SCALE = 4  # masks have so many times the cells of the features


@dataclass(frozen=True, slots=True)
class Prompt:
    """*points* (B x N x 2, in pixels of the model's pictures) with *labels* (B x N: 1 on the thing, 0 beside it); *box* (B x 2 x 2
    corners); *mask* (B x 1 x H x W, values before the sigmoid)."""

    points: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    box: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is one point, which may mean several things."""
        return self.labels is not None and self.labels.shape[1] == 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """*low*: masks, N x 1 x H x W; *high*: those at the size of the model's pictures; *pointers* (N x C, or buckets x M x C): what is
    remembered of each thing; *scores* (N x 1): above 0 where it is in the picture."""

    low: torch.Tensor
    high: torch.Tensor
    pointers: torch.Tensor
    scores: torch.Tensor


def apply_layers(layers: Any, x: torch.Tensor) -> torch.Tensor:
    """*x* (B x C x H x W) through *layers*, whose norms are over the channels."""
    for layer in layers:
        x = layer(x.movedim(1, -1)).movedim(-1, 1) if isinstance(layer, torch.nn.LayerNorm) else layer(x)
    return x


class SAMPromptEncoder(torch.nn.Module):
    """Points and corners as tokens, masks as something to add to the picture's features, which have *grid* cells each way."""

    def __init__(self, d_model: int, grid: int, image_size: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.grid, self.image_size = grid, image_size
        self.pe_layer = PositionEmbeddingRandom(d_model // 2, **kept)
        self.point_embeddings = torch.nn.ModuleList(operations.Embedding(1, d_model, **kept) for _ in range(4))
        self.not_a_point_embed, self.no_mask_embed = (operations.Embedding(1, d_model, **kept) for _ in range(2))
        self.mask_downscaling = torch.nn.Sequential(
            operations.Conv2d(1, 4, 2, stride=2, **kept),
            operations.LayerNorm(4, **kept),
            torch.nn.GELU(),
            operations.Conv2d(4, 16, 2, stride=2, **kept),
            operations.LayerNorm(16, **kept),
            torch.nn.GELU(),
            operations.Conv2d(16, d_model, 1, **kept),
        )

    def places(self, like: torch.Tensor) -> torch.Tensor:
        """Those of the picture's cells: 1 x C x grid x grid."""
        return self.pe_layer((self.grid, self.grid), like)

    def forward(self, prompt: Prompt, batch: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(tokens B x N x C, what to add to the features B x C x grid x grid), where and as *like*."""
        points, labels = prompt.points, prompt.labels
        if points is None or labels is None:
            points, labels = like.new_zeros(batch, 1, 2), torch.full((batch, 1), UNUSED, device=like.device)
        if prompt.box is None:  # one more that stands for none, as in training
            points, labels = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=UNUSED)
        kinds = [cast_to_input(layer.weight, like) for layer in (*self.point_embeddings, self.not_a_point_embed)]
        there = (labels != UNUSED).unsqueeze(-1)
        tokens = self._placed(points.to(like)) * there + torch.cat(kinds)[labels.long()]
        if prompt.box is not None:
            corners = self._placed(prompt.box.to(like)) + torch.cat(kinds[2:4])
            tokens = torch.cat([tokens, corners], dim=1)
        if prompt.mask is None:
            return tokens, cast_to_input(self.no_mask_embed.weight, like)[..., None, None].expand(batch, -1, self.grid, self.grid)
        size = (self.grid * MASK_SCALE,) * 2
        mask = prompt.mask.to(like)
        if tuple(mask.shape[-2:]) != size:
            mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=True)
        return tokens, apply_layers(self.mask_downscaling, mask)

    def _placed(self, points: torch.Tensor) -> torch.Tensor:
        return self.pe_layer.encode((points + 0.5) / self.image_size)


class _Upscaling(torch.nn.Module):
    """What both mask decoders share: the look at the picture, and its features at four times their size."""

    def __init__(self, d_model: int, dim_ff: int, things: int, masks: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.transformer = TwoWayTransformer(2, d_model, HEADS, dim_ff, **made)
        self.iou_token, self.obj_score_token = (operations.Embedding(things, d_model, **kept) for _ in range(2))
        self.mask_tokens = operations.Embedding(things * masks, d_model, **kept)
        self.output_upscaling = torch.nn.Sequential(
            operations.ConvTranspose2d(d_model, d_model // 4, 2, stride=2, **kept),
            operations.LayerNorm(d_model // 4, **kept),
            torch.nn.GELU(),
            operations.ConvTranspose2d(d_model // 4, d_model // 8, 2, stride=2, **kept),
            torch.nn.GELU(),
        )
        self.conv_s0 = operations.Conv2d(d_model, d_model // 8, 1, **kept)
        self.conv_s1 = operations.Conv2d(d_model, d_model // 4, 1, **kept)
        self.output_hypernetworks_mlps = torch.nn.ModuleList(MLP(d_model, d_model, d_model // 8, 3, **made) for _ in range(masks))
        self.iou_prediction_head = MLP(d_model, d_model, masks, 3, **made)
        self.pred_obj_score_head = MLP(d_model, d_model, 1, 3, **made)

    def _look(self, tokens: torch.Tensor, cells: torch.Tensor, places: torch.Tensor, larger: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens after looking at *cells* (B x C x H x W), and those at four times their size, with what *larger* features add."""
        size, batch = (cells.shape[-2], cells.shape[-1]), len(tokens)
        flat, placed = (part.expand(batch, -1, -1, -1).flatten(2).mT for part in (cells, places))
        tokens, flat = self.transformer(flat, placed, tokens)
        first, norm, activate, second, last = self.output_upscaling
        x = first(flat.mT.unflatten(2, size)) + self.conv_s1(larger[1])
        x = second(activate(apply_layers([norm], x))) + self.conv_s0(larger[0])
        return tokens, last(x)

    def _kinds(self, like: torch.Tensor) -> list[torch.Tensor]:
        return [cast_to_input(layer.weight, like) for layer in (self.obj_score_token, self.iou_token, self.mask_tokens)]


class SAMMaskDecoder(_Upscaling):
    """The mask of one prompt, and three more for a prompt that may mean several things."""

    def __init__(self, d_model: int, dim_ff: int, **made: Any) -> None:
        super().__init__(d_model, dim_ff, 1, 1 + CHOICES, **made)

    def forward(
        self, cells: torch.Tensor, places: torch.Tensor, tokens: torch.Tensor, larger: Features, several: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(masks B x T x H x W, how good each is B x T, their tokens B x T x C, scores B x 1): the three if *several*, else the one."""
        kinds = torch.cat(self._kinds(tokens)).expand(len(tokens), -1, -1)
        seen, wide = self._look(torch.cat([kinds, tokens], dim=1), cells, places, larger)
        masks = seen[:, 2 : 3 + CHOICES]
        weights = torch.stack([mlp(masks[:, number]) for number, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        drawn = torch.einsum("btc,bchw->bthw", weights, wide)
        chosen = slice(1, None) if several else slice(0, 1)
        quality = self.iou_prediction_head(seen[:, 1])
        return drawn[:, chosen], quality[:, chosen], masks[:, chosen], self.pred_obj_score_head(seen[:, 0])


class MultiplexMaskDecoder(_Upscaling):
    """Three masks for each of *num_multiplex* things at once. Without prompts: what is remembered told the features what to draw."""

    def __init__(self, d_model: int, dim_ff: int, num_multiplex: int, **made: Any) -> None:
        super().__init__(d_model, dim_ff, num_multiplex, CHOICES, **made)
        self.num_multiplex = num_multiplex

    def forward(
        self, cells: torch.Tensor, places: torch.Tensor, told: torch.Tensor, larger: Features
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(masks B x M x T x H x W, how good each is B x M x T, the first masks' tokens B x M x C, scores B x M x 1).

        *told* (B x M x C) is added to the tokens of each thing's masks.
        """
        things = self.num_multiplex
        scores, quality, masks = self._kinds(cells)
        masks = masks.unflatten(0, (things, CHOICES)) + told.unsqueeze(2)
        others = torch.cat([scores, quality]).expand(len(told), -1, -1)
        seen, wide = self._look(torch.cat([others, masks.flatten(1, 2)], dim=1), cells, places, larger)
        drawing = seen[:, 2 * things :].unflatten(1, (things, CHOICES))
        weights = torch.stack([mlp(drawing[:, :, number]) for number, mlp in enumerate(self.output_hypernetworks_mlps)], dim=2)
        drawn = torch.einsum("bmtc,bchw->bmthw", weights, wide)
        ious = self.iou_prediction_head(seen[:, things : 2 * things])
        return drawn, ious, drawing[:, :, 0], self.pred_obj_score_head(seen[:, :things])


def enlarged(masks: torch.Tensor, side: int) -> torch.Tensor:
    """*masks* (N x 1 x H x W) at *side* x *side*."""
    return F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)
