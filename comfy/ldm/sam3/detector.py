"""SAM 3: finds everything in a picture that a text names, draws what points and boxes mean, and follows things through videos.

Shapes: B batch, N tokens, Q queries, C width, S the side of the model's pictures. Masks follow MaskFormer (B. Cheng et al., 2021).
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.ldm.sam3.boxes import corners, roi_align
from comfy.ldm.sam3.following import Following, Rules, follow_shown
from comfy.ldm.sam3.prompts import Prompt
from comfy.ldm.sam3.sam import MLP, Features, PositionEmbeddingSine, SAM3VisionBackbone, SAMAttention, layers_of
from comfy.ldm.sam3.tracker import SAM3Tracker, SAM31Tracker
from comfy.ldm.sam3.transformer import HEADS, EncoderLayer, Transformer
from comfy.ldm.sam3.weights import network_source, split
from comfy.ops import cast_to_input

SURE = 12.0  # scores are cut there
WHAT = "the segmentation model"


@dataclass(frozen=True, slots=True)
class Found:
    """*boxes* (B x Q x 4, corners from 0 to 1), *scores* (B x Q) and *masks* (B x Q x H x W), both before the sigmoid."""

    boxes: torch.Tensor
    scores: torch.Tensor
    masks: torch.Tensor
    presence: torch.Tensor


class GeometryEncoder(torch.nn.Module):
    """Boxes as tokens of the prompt: what lies in them and where they are; and one token for the whole picture.

    *roi_size*: the side of what is cut out of the picture's features.
    """

    def __init__(self, d_model: int, dim_ff: int, num_layers: int, roi_size: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.roi_size, self.places = roi_size, PositionEmbeddingSine(d_model)
        self.points_direct_project = operations.Linear(2, d_model, **kept)
        self.points_pool_project, self.points_pos_enc_project = (operations.Linear(d_model, d_model, **kept) for _ in range(2))
        self.boxes_direct_project = operations.Linear(4, d_model, **kept)
        self.boxes_pool_project = operations.Conv2d(d_model, d_model, roi_size, **kept)
        self.boxes_pos_enc_project = operations.Linear(d_model + 2, d_model, **kept)
        self.label_embed, self.cls_embed = operations.Embedding(2, d_model, **kept), operations.Embedding(1, d_model, **kept)
        self.norm, self.img_pre_norm, self.encode_norm = (operations.LayerNorm(d_model, **kept) for _ in range(3))
        self.encode = torch.nn.ModuleList(EncoderLayer(d_model, dim_ff, **made) for _ in range(num_layers))
        self.final_proj = operations.Linear(d_model, d_model, **kept)

    def whole(self, cells: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The token for the picture: B x 1 x C."""
        x = cast_to_input(self.cls_embed.weight, cells).expand(len(cells), 1, -1)
        return self._read(self.norm(self.final_proj(x)), cells, cells + positions)

    def boxes(self, boxes: torch.Tensor, cells: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """*boxes* (B x N x 4: middle and size from 0 to 1), all of what is looked for: B x N x C."""
        height, width = size
        normed = self.img_pre_norm(cells).mT.unflatten(2, size)
        edges = corners(boxes) * boxes.new_tensor([width, height, width, height])
        cut = torch.stack([self.boxes_pool_project(roi_align(*pair, self.roi_size)).flatten(1) for pair in zip(normed, edges)])
        columns, rows = (self.places.along(boxes[..., axis]) for axis in range(2))
        places = torch.cat([rows, columns, boxes[..., 3:], boxes[..., 2:3]], dim=-1).to(cells.dtype)
        label = cast_to_input(self.label_embed.weight, cells)[1]
        x = self.boxes_direct_project(boxes) + cut + self.boxes_pos_enc_project(places) + label
        return self.final_proj(self._read(self.norm(x), cells, None))

    def _read(self, x: torch.Tensor, cells: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        for layer in self.encode:
            x = layer(x, None, cells, keys=keys)
        return self.encode_norm(x)


class SegmentationHead(torch.nn.Module):
    """A mask for each query: its product with features of the largest size, which take in those of smaller sizes from the smallest up."""

    pixel_decoder: Any
    mask_predictor: Any

    def __init__(self, d_model: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.pixel_decoder, self.mask_predictor = torch.nn.Module(), torch.nn.Module()
        self.pixel_decoder.conv_layers = torch.nn.ModuleList(operations.Conv2d(d_model, d_model, 3, padding=1, **kept) for _ in range(3))
        self.pixel_decoder.norms = torch.nn.ModuleList(operations.GroupNorm(8, d_model, **kept) for _ in range(3))
        self.mask_predictor.mask_embed = MLP(d_model, d_model, d_model, 3, **made)
        self.cross_attend_prompt = SAMAttention(d_model, HEADS, **made)
        self.cross_attn_norm = operations.LayerNorm(d_model, **kept)
        self.instance_seg_head = operations.Conv2d(d_model, d_model, 1, **kept)
        self.semantic_seg_head = operations.Conv2d(d_model, 1, 1, **kept)

    def forward(
        self, queries: torch.Tensor, features: Features, cells: torch.Tensor, prompt: torch.Tensor | None, prompt_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """B x Q x H x W. *cells*, the encoder's result, take the place of the smallest of *features*, whose size the first of them have."""
        if prompt is not None:
            cells = cells + self.cross_attend_prompt(self.cross_attn_norm(cells), prompt, prompt, prompt_mask)
        *larger, last = features
        size = tuple(last.shape[-2:])
        x = cells[:, : size[0] * size[1]].mT.unflatten(2, size)
        for conv, norm, feature in zip(self.pixel_decoder.conv_layers, self.pixel_decoder.norms, reversed(larger)):
            x = F.relu(norm(conv(feature + F.interpolate(x, size=feature.shape[-2:], mode="nearest"))))
        return torch.einsum("bqc,bchw->bqhw", self.mask_predictor.mask_embed(queries), self.instance_seg_head(x))


class DotProductScoring(torch.nn.Module):
    """How well queries fit the prompt, of whose tokens the mean counts."""

    prompt_mlp: Any

    def __init__(self, d_model: int, dim_ff: int, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.hs_proj, self.prompt_proj = (operations.Linear(d_model, d_model, **kept) for _ in range(2))
        self.prompt_mlp = MLP(d_model, dim_ff, d_model, 2, **made)
        self.prompt_mlp.out_norm = operations.LayerNorm(d_model, **kept)

    def forward(self, queries: torch.Tensor, prompt: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """B x Q."""
        prompt = self.prompt_mlp.out_norm(prompt + self.prompt_mlp(prompt))
        counted = mask.unsqueeze(-1).to(prompt)
        pooled = (prompt * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        scores = self.hs_proj(queries) @ self.prompt_proj(pooled).unsqueeze(-1)
        return (scores.squeeze(-1) / math.sqrt(queries.shape[-1])).clamp(-SURE, SURE)


class SAM3Detector(torch.nn.Module):
    """Eyes, encoder, decoder and head. The encoder takes the smallest of the three sizes of features, the head all."""

    def __init__(self, sizes: dict[str, Any], made: dict[str, Any]) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        d_model, dim_ff = sizes["d_model"], sizes["dim_ff"]
        multiplex = sizes["image_model"] == "SAM31"
        trunk = {name: sizes[name] for name in ("depth", "num_heads", "mlp_dim", "patch_size", "pretrain_grid")}
        self.backbone: Any = torch.nn.ModuleDict(
            {
                "vision_backbone": SAM3VisionBackbone(sizes["embed_dim"], d_model, multiplex, made, **trunk),
                "language_backbone": torch.nn.ModuleDict({"resizer": operations.Linear(sizes["text_dim"], d_model, **kept)}),
            }
        )
        layers = (sizes["encoder_layers"], sizes["decoder_layers"])
        self.transformer = Transformer(d_model, dim_ff, *layers, sizes["num_queries"], **made)
        self.segmentation_head = SegmentationHead(d_model, **made)
        self.geometry_encoder = GeometryEncoder(d_model, dim_ff, sizes["geometry_layers"], sizes["roi_size"], **made)
        self.dot_prod_scoring = DotProductScoring(d_model, dim_ff, **made)

    @property
    def eyes(self) -> SAM3VisionBackbone:
        """Trunk and necks."""
        return self.backbone["vision_backbone"]

    def resized(self, text: torch.Tensor) -> torch.Tensor:
        """Text states (B x N x their width) as tokens of the prompt."""
        return self.backbone["language_backbone"]["resizer"](text)

    def forward(self, trunk: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, boxes: torch.Tensor | None = None) -> Found:
        """What the prompt names in the picture whose trunk's result is *trunk* (B).

        *text*: tokens as :meth:`resized` gives them (1 x N x C), those that *mask* (1 x N) is true for. *boxes* (1 x N x 4, middle and size
        from 0 to 1) are around some of it.
        """
        features = self.eyes.features(trunk)
        seen = features[-1]
        size = (seen.shape[-2], seen.shape[-1])
        cells, positions = (part.flatten(2).mT for part in (seen, self.eyes.position_encoding(seen)))
        parts = [text.expand(len(cells), -1, -1)]
        if boxes is not None:
            parts.append(self.geometry_encoder.boxes(boxes, cells, size))
        prompt = torch.cat([*parts, self.geometry_encoder.whole(cells, positions)], dim=1)
        mask = F.pad(mask.bool(), (0, prompt.shape[1] - mask.shape[1]), value=True).expand(len(cells), -1)
        memory = cells
        for layer in self.transformer.encoder.layers:
            memory = layer(memory, positions, prompt, mask)
        queries, found, presence = self.transformer.decoder(memory, positions, prompt, mask, size)
        masks = self.segmentation_head(queries, features, memory, prompt, mask)
        return Found(corners(found), self.dot_prod_scoring(queries, prompt, mask), masks, presence)


class SAM3Model(torch.nn.Module):
    """Detector and tracker of *sizes* (see :mod:`comfy.dit.sam3`). :mod:`comfy.ldm.sam3.weights` says how files name its parameters."""

    weights_device: torch.device | None = None

    def __init__(self, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None, **sizes: Any) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        if operations is not None:
            made["operations"] = operations
        self.dtype = dtype
        self.multiplex = sizes["image_model"] == "SAM31"
        self.detector = SAM3Detector(sizes, made)
        self.tracker: Any = (SAM31Tracker if self.multiplex else SAM3Tracker)(sizes, made)

    @property
    def image_size(self) -> int:
        """The side of the pictures it takes, in pixels."""
        return self.tracker.image_size

    def load_weights(self, source: WeightSource | MutableMapping[str, torch.Tensor], prefix: str = "") -> None:
        """Make the tensors of *source* below *prefix* the parameters, as views. Raises ``ModelFileError`` if tensors are missing or do not
        fit."""
        if isinstance(source, MutableMapping):
            source = StateDictSource(source, consume=True)
        part = network_source(plain_weights(PrefixedSource(source, prefix)))
        with naming_file(source.name, WHAT):
            plan = plan_conversion(part.shapes(), split)
        dtype = self.dtype if self.dtype is not None else torch.float32
        load_parameters(self, part, plan, dtype, WHAT, self.weights_device)

    def look(self, picture: torch.Tensor) -> torch.Tensor:
        """What the trunk sees in *picture* (B x 3 x S x S): B x C x H x W, for the methods below."""
        return self.detector.eyes.trunk(picture)

    def draw(self, trunk: torch.Tensor, prompt: Prompt) -> torch.Tensor:
        """The mask that *prompt* means: 1 x 1 x S x S, before the sigmoid."""
        *larger, cells = self.detector.eyes.prompted(trunk)
        return self.tracker.draw(self.tracker.without_memory(cells), larger, prompt, several=prompt.is_ambiguous).high

    def forward_video(
        self,
        images: torch.Tensor,
        initial_masks: torch.Tensor | None,
        pbar: Any = None,
        text_prompts: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
        new_det_thresh: float = 0.5,
        max_objects: int = 0,
        detect_interval: int = 1,
        target_device: Any = None,
        target_dtype: torch.dtype | None = None,
    ) -> dict[str, Any]:
        """Things in *images* (frames x 3 x height x width): {"packed_masks": frames x things x S x S/8, or None where there are none,
        "n_frames", "scores"}.

        *initial_masks* (things x 1 x …) show them in the first frame; *text_prompts* (text states, mask) name what is looked for in every
        *detect_interval*-th. Raises ``ValueError`` where SAM 3, which looks for nothing in videos, is shown nothing, and
        ``InterruptProcessingException``.
        """
        where = (target_device or images.device, target_dtype or images.dtype)
        prompts = [(self.detector.resized(text), mask) for text, mask in text_prompts]
        if not self.multiplex:
            if initial_masks is None:
                raise ValueError("SAM 3 follows only what initial_mask shows; load SAM 3.1 to look for things by text in a video")
            return follow_shown(self, images, initial_masks, where, pbar)
        rules = Rules(new_det_thresh, max_objects, detect_interval)
        return Following(self, prompts, rules, len(images)).run(images, initial_masks, where, pbar)
