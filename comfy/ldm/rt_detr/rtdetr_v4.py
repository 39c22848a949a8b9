"""RT-DETR v4: finds things of 80 kinds in pictures, in one pass.

Z. Liao et al., "RT-DETRv4" (2025), on D-FINE's network (Y. Peng et al., 2024): HGNetv2's features at three sizes, mixed from the smallest
up and from the largest down, and a decoder whose queries place each edge of a box by a distribution over distances. Shapes: B batch,
Q queries, C width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.ldm.rt_detr.backbone import Convolution, HGNetv2
from comfy.ldm.sam3.boxes import corners
from comfy.ldm.sam3.sam import SAMAttention, layers_of

WHAT = "the detector"
HEADS, LEVELS = 8, 3
SAMPLES = (3, 6, 3)  # places that a head looks at, per size of features
QUERIES = 300
LIKELY = 4  # of a distribution: the likeliest distances, which tell how sure a box is
OFFSETS, ANCHOR, MARGIN = 0.5, 0.05, 0.01
LARGEST = 65504.0
COMPUTED = ("anchors", "valid_mask", ".project", "num_points_scale", "num_batches_tracked")


class MLP(torch.nn.Module):
    """Linear layers with SiLU between them."""

    def __init__(self, widths: Sequence[int], **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.layers = torch.nn.ModuleList(operations.Linear(*pair, **kept) for pair in zip(widths, widths[1:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """… x first width to … x last."""
        *first, last = self.layers
        for layer in first:
            x = F.silu(layer(x))
        return last(x)


class CSPLayer(torch.nn.Module):
    """Convolutions beside a short way."""

    def __init__(self, inputs: int, width: int, blocks: int, **made: Any) -> None:
        super().__init__()
        self.conv1, self.conv2 = (Convolution(inputs, width, 1, act=True, **made) for _ in range(2))
        self.bottlenecks = torch.nn.Sequential(*(Convolution(width, width, 3, act=True, **made) for _ in range(blocks)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        return self.bottlenecks(self.conv1(x)) + self.conv2(x)


class RepNCSPELAN4(torch.nn.Module):
    """Mixes two sizes of features: halves, and what two such layers make one after the other."""

    def __init__(self, width: int, inner: int, blocks: int, **made: Any) -> None:
        super().__init__()
        self.cv1 = Convolution(2 * width, 2 * width, 1, act=True, **made)
        self.cv2, self.cv3 = (
            torch.nn.Sequential(CSPLayer(inputs, inner, blocks, **made), Convolution(inner, inner, 3, act=True, **made))
            for inputs in (width, inner)
        )
        self.cv4 = Convolution(2 * width + 2 * inner, width, 1, act=True, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 2·C x H x W to B x C x H x W."""
        first, second = self.cv1(x).chunk(2, dim=1)
        third = self.cv2(second)
        return self.cv4(torch.cat([first, second, third, self.cv3(third)], dim=1))


class SelfAttentionLayer(torch.nn.Module):
    """Cells of the smallest size attend to each other."""

    def __init__(self, width: int, inner: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.self_attn = SAMAttention(width, HEADS, **made)
        self.linear1, self.linear2 = operations.Linear(width, inner, **kept), operations.Linear(inner, width, **kept)
        self.norm1, self.norm2 = (operations.LayerNorm(width, **kept) for _ in range(2))

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """B x N x C."""
        placed = x + places
        x = self.norm1(x + self.self_attn(placed, placed, x))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class HybridEncoder(torch.nn.Module):
    """Three sizes of features, each told of the others."""

    def __init__(self, channels: Sequence[int], sizes: Mapping[str, Any], **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        width, mixing = sizes["enc_h"], (sizes["enc_inner"], sizes["enc_blocks"])
        self.input_proj = torch.nn.ModuleList(Convolution(count, width, 1, **made) for count in channels)
        layers = torch.nn.Module()
        layers.layers = torch.nn.ModuleList(SelfAttentionLayer(width, sizes["enc_ff"], **made) for _ in range(sizes["enc_layers"]))
        self.encoder: Any = torch.nn.ModuleList([layers])
        self.lateral_convs = torch.nn.ModuleList(Convolution(width, width, 1, **made) for _ in range(LEVELS - 1))
        self.fpn_blocks = torch.nn.ModuleList(RepNCSPELAN4(width, *mixing, **made) for _ in range(LEVELS - 1))
        self.downsample_convs = torch.nn.ModuleList(torch.nn.Sequential(_Halving(width, **made)) for _ in range(LEVELS - 1))
        self.pan_blocks = torch.nn.ModuleList(RepNCSPELAN4(width, *mixing, **made) for _ in range(LEVELS - 1))

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The same three sizes, the largest first."""
        large, middle, small = (project(feature) for project, feature in zip(self.input_proj, features))
        size, places = small.shape[-2:], _places(small)
        cells = small.flatten(2).mT
        for layer in self.encoder[0].layers:
            cells = layer(cells, places)
        tops = [self.lateral_convs[0](cells.mT.unflatten(2, size))]
        for number, feature in enumerate((middle, large)):
            doubled = F.interpolate(tops[-1], scale_factor=2.0, mode="nearest")
            mixed = self.fpn_blocks[number](torch.cat([doubled, feature], dim=1))
            tops.append(self.lateral_convs[1](mixed) if number == 0 else mixed)
        found = [tops[2]]
        for number, top in enumerate((tops[1], tops[0])):
            found.append(self.pan_blocks[number](torch.cat([self.downsample_convs[number](found[-1]), top], dim=1)))
        return found


class _Halving(torch.nn.Module):
    """Features at half their sides."""

    def __init__(self, width: int, **made: Any) -> None:
        super().__init__()
        self.cv1, self.cv2 = Convolution(width, width, 1, **made), Convolution(width, width, 3, stride=2, groups=width, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv2(self.cv1(x))


class MSDeformableAttention(torch.nn.Module):
    """Each head looks at a few places of each size of features, where its query says (X. Zhu et al., 2021)."""

    def __init__(self, width: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        total = HEADS * sum(SAMPLES)
        self.sampling_offsets = operations.Linear(width, total * 2, **kept)
        self.attention_weights = operations.Linear(width, total, **kept)

    def forward(self, queries: torch.Tensor, boxes: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """B x Q x C, of *features* split into heads ((B·heads) x C/heads x H x W) around *boxes* (B x Q x 4, middle and size)."""
        offsets = self.sampling_offsets(queries).unflatten(-1, (HEADS, sum(SAMPLES), 2))
        shares = self.attention_weights(queries).unflatten(-1, (HEADS, sum(SAMPLES))).softmax(dim=-1)
        scale = torch.cat([offsets.new_full((count, 1), 1 / count) for count in SAMPLES])
        around = boxes[:, :, None, None]
        grid = (around[..., :2] + offsets * scale * around[..., 2:] * OFFSETS) * 2 - 1
        grids = grid.transpose(1, 2).flatten(0, 1).split(SAMPLES, dim=2)
        seen = [F.grid_sample(feature, part, align_corners=False) for feature, part in zip(features, grids)]
        mixed = (torch.cat(seen, dim=-1) * shares.transpose(1, 2).flatten(0, 1)[:, None]).sum(dim=-1)
        return mixed.unflatten(0, (-1, HEADS)).flatten(1, 2).mT


class Gate(torch.nn.Module):
    """Two inputs, as much of each as both say."""

    def __init__(self, width: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.gate, self.norm = operations.Linear(2 * width, 2 * width, **kept), operations.LayerNorm(width, **kept)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """B x Q x C."""
        first, second = self.gate(torch.cat([x, y], dim=-1)).sigmoid().chunk(2, dim=-1)
        return self.norm(first * x + second * y)


class TransformerDecoderLayer(torch.nn.Module):
    """Queries attend to each other and to the features."""

    def __init__(self, width: int, inner: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.self_attn, self.cross_attn = SAMAttention(width, HEADS, **made), MSDeformableAttention(width, **made)
        self.norm1, self.norm3 = (operations.LayerNorm(width, **kept) for _ in range(2))
        self.gateway = Gate(width, **made)
        self.linear1, self.linear2 = operations.Linear(width, inner, **kept), operations.Linear(inner, width, **kept)

    def forward(self, x: torch.Tensor, places: torch.Tensor, boxes: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """B x Q x C."""
        placed = x + places
        x = self.norm1(x + self.self_attn(placed, placed, x))
        x = self.gateway(x, self.cross_attn(x + places, boxes, features))
        return self.norm3((x + self.linear2(F.relu(self.linear1(x)))).clamp(-LARGEST, LARGEST))


class DFINETransformer(torch.nn.Module):
    """The decoder. *up* and *reg_scale* say how the distances of edges are spread."""

    decoder: Any
    enc_output: Any

    def __init__(self, sizes: Mapping[str, Any], **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        width, classes, count, self.bins = sizes["dec_h"], sizes["classes"], sizes["dec_layers"], sizes["bins"]
        inner = sizes["enc_h"]
        self.input_proj = torch.nn.ModuleList(
            Convolution(inner, width, 1, **made) if inner != width else torch.nn.Identity() for _ in range(LEVELS)
        )
        self.up, self.reg_scale = (torch.nn.Parameter(torch.empty(1, **kept), requires_grad=False) for _ in range(2))
        self.decoder, self.enc_output = torch.nn.Module(), torch.nn.Module()
        self.decoder.layers = torch.nn.ModuleList(TransformerDecoderLayer(width, sizes["dec_ff"], **made) for _ in range(count))
        self.decoder.lqe_layers = torch.nn.ModuleList(torch.nn.Module() for _ in range(count))
        for layer in self.decoder.lqe_layers:
            layer.reg_conf = MLP((4 * (LIKELY + 1), sizes["lqe"], 1), **made)
        self.query_pos_head = MLP((4, 2 * width, width), **made)
        self.enc_output.proj, self.enc_output.norm = operations.Linear(width, width, **kept), operations.LayerNorm(width, **kept)
        self.enc_score_head = operations.Linear(width, classes, **kept)
        self.enc_bbox_head, self.pre_bbox_head = (MLP((width, width, width, 4), **made) for _ in range(2))
        self.dec_score_head = torch.nn.ModuleList(operations.Linear(width, classes, **kept) for _ in range(count))
        self.dec_bbox_head = torch.nn.ModuleList(MLP((width, width, width, 4 * self.bins), **made) for _ in range(count))

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores B x Q x classes before the sigmoid, boxes B x Q x 4: middle and size from 0 to 1)."""
        projected = [project(feature) for project, feature in zip(self.input_proj, features)]
        x, boxes = self._queries(projected)
        split = [feature.unflatten(1, (HEADS, -1)).flatten(0, 1) for feature in projected]
        distances = self._distances().to(x)
        first, told, bins = boxes, torch.zeros_like(x), torch.zeros(1, device=x.device, dtype=x.dtype)
        for number, layer in enumerate(self.decoder.layers):
            x = layer(x, self.query_pos_head(boxes).clamp(-10, 10), boxes, split)
            if number == 0:
                kept = boxes.clamp(1e-5, 1 - 1e-5)
                first = (self.pre_bbox_head(x) + torch.log(kept / (1 - kept))).sigmoid()
            bins = self.dec_bbox_head[number](x + told) + bins
            likely = bins.unflatten(-1, (4, self.bins)).softmax(dim=-1)
            boxes, told = self._moved(first, likely @ distances), x
        best = likely.topk(LIKELY, dim=-1).values
        sure = torch.cat([best, best.mean(dim=-1, keepdim=True)], dim=-1).flatten(2)
        return self.dec_score_head[-1](x) + self.decoder.lqe_layers[-1].reg_conf(sure), boxes

    def _queries(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells that are likeliest to hold something, and boxes around it."""
        cells = torch.cat([feature.flatten(2).mT for feature in features], dim=1)
        anchors, inside = _anchors([tuple(feature.shape[-2:]) for feature in features], cells)
        seen = self.enc_output.norm(self.enc_output.proj(cells * inside))
        scores = self.enc_score_head(seen).amax(dim=-1)
        chosen = scores.topk(min(QUERIES, scores.shape[1]), dim=-1).indices[..., None]
        x = seen.gather(1, chosen.expand(-1, -1, seen.shape[-1]))
        around = anchors.expand(len(cells), -1, -1).gather(1, chosen.expand(-1, -1, 4))
        return x, (self.enc_bbox_head(x) + around).sigmoid()

    def _distances(self) -> torch.Tensor:
        """What each bin of a distribution stands for: finer near 0."""
        most, half = abs(float(self.up) * float(self.reg_scale)), (self.bins - 1) // 2
        step = (most + 1) ** (2 / (self.bins - 3))
        right = [step**number - 1 for number in range(1, half)] + [2 * most]
        return torch.tensor([-value for value in reversed(right)] + [0.0] + right)

    def _moved(self, boxes: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """*boxes* whose left, top, right and lower edges are *distances* (B x Q x 4) away from where they were."""
        scale = abs(float(self.reg_scale))
        middle, unit = boxes[..., :2], boxes[..., 2:] / scale
        start, end = middle - (scale / 2 + distances[..., :2]) * unit, middle + (scale / 2 + distances[..., 2:]) * unit
        return torch.cat([(start + end) / 2, end - start], dim=-1)


class RTv4(torch.nn.Module):
    """The network. *sizes* are those of :func:`comfy.dit.rt_detr.read_config`; parameters have the published names."""

    weights_device: torch.device | None = None

    def __init__(self, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None, **sizes: Any) -> None:
        super().__init__()
        self.dtype = dtype
        made = {"device": device, "dtype": dtype, "operations": operations or comfy.ops.disable_weight_init}
        self.backbone = HGNetv2(sizes["stem"], sizes["stages"], **made)
        self.encoder = HybridEncoder([stage.outputs for stage in sizes["stages"][-LEVELS:]], sizes, **made)
        self.decoder = DFINETransformer(sizes, **made)

    def load_weights(self, source: WeightSource | MutableMapping[str, torch.Tensor], prefix: str = "") -> None:
        """Make the tensors of *source* below *prefix* the parameters. Raises ``ModelFileError`` if any are missing or do not fit."""
        if isinstance(source, MutableMapping):
            source = StateDictSource(source, consume=True)
        part = plain_weights(PrefixedSource(source, prefix))
        shapes = {name: shape for name, shape in part.shapes().items() if not name.endswith(COMPUTED)}
        load_published(self, RenamedSource(part, {name: name for name in shapes}, shapes), self.dtype, WHAT, self.weights_device)

    def forward(self, x: torch.Tensor, orig_size: tuple[int, int] = (640, 640)) -> list[dict[str, torch.Tensor]]:
        """What is in each picture of *x* (B x 3 x H x W, sides a multiple of 32), the surest first: {"labels", "boxes" (corners, in pixels
        of *orig_size*, width and height), "scores"}."""
        logits, boxes = self.decoder(self.encoder(self.backbone(x)))
        edges = corners(boxes) * boxes.new_tensor([*orig_size, *orig_size])
        scores, chosen = logits.sigmoid().flatten(1).topk(logits.shape[1], dim=-1)
        labels, rows = chosen % logits.shape[2], chosen // logits.shape[2]
        edges = edges.gather(1, rows[..., None].expand(-1, -1, 4))
        return [{"labels": label, "boxes": box, "scores": score} for label, box, score in zip(labels, edges, scores)]


def _places(feature: torch.Tensor) -> torch.Tensor:
    """Of the cells of *feature*, sines and cosines of falling frequency: 1 x N x C. As in D-FINE, columns come before rows."""
    height, width = feature.shape[-2:]
    quarter = feature.shape[1] // 4
    steps = 10000.0 ** -(torch.arange(quarter, device=feature.device) / quarter)
    columns, rows = torch.meshgrid(*(torch.arange(side, device=feature.device) for side in (width, height)), indexing="ij")
    parts = [function(axis.flatten()[:, None] * steps) for axis in (columns, rows) for function in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1)[None].to(feature)


def _anchors(sizes: Sequence[tuple[int, ...]], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(a box around each cell, 1 x N x 4 before the sigmoid; 1 for those inside the picture, else 0, 1 x N x 1)."""
    found = []
    for level, (height, width) in enumerate(sizes):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        middles = (torch.stack([columns, rows], dim=-1).flatten(0, 1) + 0.5) / torch.tensor([width, height])
        found.append(torch.cat([middles, torch.full_like(middles, ANCHOR * 2.0**level)], dim=-1))
    boxes = torch.cat(found)[None]
    inside = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(dim=-1, keepdim=True)
    boxes = torch.where(inside, torch.log(boxes / (1 - boxes)), math.inf)
    return boxes.to(like), inside.to(like)
