"""SAM 3's trackers: masks from prompts, and masks of the same things in the frames that follow.

Shapes: B batch, N things, C width, H and W sides of a frame's features, S the side of the model's pictures. SAM 3.1 keeps its things in
buckets of M, which it draws and remembers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.sam3.masks import without_specks
from comfy.ldm.sam3.memory import MASK_CELLS, MemoryBackbone, MemoryEncoder
from comfy.ldm.sam3.prompts import (
    BIAS,
    CLEAR,
    MASK_SCALE,
    NOTHING,
    Drawn,
    MultiplexMaskDecoder,
    Prompt,
    SAMMaskDecoder,
    SAMPromptEncoder,
    enlarged,
)
from comfy.ldm.sam3.sam import MLP, THETA, Features, PositionEmbeddingRandom, PositionEmbeddingSine, layers_of
from comfy.ops import cast_to_input

POINTERS = 16  # frames whose pointers are remembered
SPECK = 200  # cells of a mask that are a speck, for SAM 3


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's features: *larger* sizes (two), and the smallest, *cells* (1 x C x H x W)."""

    larger: Features
    cells: torch.Tensor

    @classmethod
    def of(cls, features: Features) -> Frame:
        """Of three sizes, the largest first."""
        return cls(list(features[:-1]), features[-1])


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of a frame: *features* with *places* (B x C x H x W), *pointers* (B x P x C), and the frame's own *cells*."""

    features: torch.Tensor
    places: torch.Tensor
    pointers: torch.Tensor
    cells: torch.Tensor


@dataclass(slots=True)
class Track:
    """What is remembered, by frame: of those that things were shown in, and of those that they were followed to."""

    shown: dict[int, Remembered] = field(default_factory=dict)
    followed: dict[int, Remembered] = field(default_factory=dict)

    def forget_before(self, number: int) -> None:
        """Forget followed frames before *number*."""
        for old in [frame for frame in self.followed if frame < number]:
            del self.followed[old]


class Tracker(torch.nn.Module):
    """What both have. A subclass says under which names (*prefix*) it keeps what draws prompts."""

    prefix = ""
    mask_gain = CLEAR  # what remembered masks, from 0 to 1, are multiplied by; half of it is taken away
    obj_ptr_tpos_proj: Any
    maskmem_backbone: Any
    transformer: Any
    maskmem_tpos_enc: torch.nn.Parameter

    def __init__(self, sizes: Mapping[str, Any], decoupled: bool, in_chans: int, made: dict[str, Any]) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        d_model, mem_dim, dim_ff = sizes["d_model"], sizes["mem_dim"], sizes["dim_ff"]
        self.grid = sizes["grid"]
        self.image_size = self.grid * sizes["patch_size"]
        self.memories = sizes["num_maskmem"]
        self.places = PositionEmbeddingSine(d_model)
        self.transformer = torch.nn.Module()
        self.transformer.encoder = MemoryEncoder(d_model, mem_dim, dim_ff, sizes["memory_layers"], decoupled, **made)
        layers = (sizes["mask_channels"], sizes["fuser_layers"])
        self.maskmem_backbone = MemoryBackbone(d_model, mem_dim, in_chans, *layers, **made)
        self.maskmem_tpos_enc = _parameter(self.memories, 1, 1, mem_dim, **kept)
        self.obj_ptr_tpos_proj = operations.Linear(d_model, mem_dim, **kept)
        parts = {
            "sam_prompt_encoder": SAMPromptEncoder(d_model, self.grid, self.image_size, **made),
            "sam_mask_decoder": SAMMaskDecoder(d_model, dim_ff, **made),
            "obj_ptr_proj": MLP(d_model, d_model, d_model, 3, **made),
            "mask_downsample": operations.Conv2d(1, 1, MASK_SCALE, stride=MASK_SCALE, **kept),
        }
        for name, part in parts.items():
            setattr(self, self.prefix + name, part)

    def _part(self, name: str) -> Any:
        return getattr(self, self.prefix + name)

    def _pointers(self, pointers: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """*pointers* (N x C) with what stands for things that are not *there* (N x 1)."""
        raise NotImplementedError

    def without_memory(self, cells: torch.Tensor) -> torch.Tensor:
        """*cells* as a frame is drawn before which nothing is remembered."""
        raise NotImplementedError

    def draw(self, cells: torch.Tensor, larger: Features, prompt: Prompt, batch: int = 1, several: bool = False) -> Drawn:
        """What *prompt* means in a frame; of three masks the best if *several*."""
        tokens, dense = self._part("sam_prompt_encoder")(prompt, batch, cells)
        places = self._part("sam_prompt_encoder").places(cells)
        masks, quality, seen, scores = self._part("sam_mask_decoder")(cells + dense, places, tokens, larger, several)
        rows, best = torch.arange(len(masks), device=masks.device), quality.argmax(dim=-1)
        low = torch.where((scores > 0)[..., None], masks[rows, best], NOTHING)[:, None]
        pointers = self._pointers(self._part("obj_ptr_proj")(seen[rows, best]), scores > 0)
        return Drawn(low, enlarged(low, self.image_size), pointers, scores)

    def draw_given(self, cells: torch.Tensor, larger: Features, masks: torch.Tensor) -> Drawn:
        """*masks* (N x 1 x S x S, 0 or 1) as they are, with the pointers of what they show."""
        masks = masks.to(cells)
        high = masks * CLEAR + BIAS
        low = F.interpolate(high, size=(self.grid * MASK_SCALE,) * 2, mode="bilinear", align_corners=False, antialias=True)
        shown = self.draw(cells, larger, Prompt(mask=self._part("mask_downsample")(masks)), len(masks))
        there = (masks > 0).flatten(1).any(dim=1, keepdim=True)
        return Drawn(low, high, shown.pointers, there.to(cells.dtype) * CLEAR + BIAS)

    def looking_back(self, frame: Frame, number: int, frames: int, track: Track, batch: int) -> torch.Tensor:
        """The *cells* of frame *number* of *frames* after looking at what is remembered: B x C x H x W."""
        remembered = [(self._age(number - shown), memory) for shown, memory in track.shown.items()]
        for ago in range(self.memories - 1, 0, -1):
            if number - ago in track.followed:
                remembered.append((ago - 1, track.followed[number - ago]))
        if not remembered:
            return self.without_memory(frame.cells)
        memory, positions, pictures, encoder = [], [], [], self.transformer.encoder
        for age, one in remembered:
            when = cast_to_input(self.maskmem_tpos_enc[age], one.places)
            memory.append(_padded(one.features, batch).flatten(2).mT)
            positions.append(_padded(one.places.expand(len(one.features), -1, -1, -1), batch).flatten(2).mT + when)
            if encoder.decoupled:
                pictures.append((one.cells.flatten(2).mT, self.places(one.cells).flatten(2).mT + when))
        most = min(frames, POINTERS)
        told = [(number - shown, one.pointers) for shown, one in track.shown.items() if shown <= number]
        told += [(ago, track.followed[number - ago].pointers) for ago in range(1, most) if number - ago in track.followed]
        tokens = torch.cat([_padded(pointers, batch) for _, pointers in told], dim=1)
        ages = self._ages([ago for ago, _ in told], most, tokens).repeat_interleave(tokens.shape[1] // len(told), dim=0)
        memory.append(tokens)
        positions.append(ages.expand(batch, -1, -1))
        seen = [torch.cat(part, dim=1) for part in zip(*pictures)] or None
        whole, where = (torch.cat(part, dim=1).to(frame.cells) for part in (memory, positions))
        return encoder(frame.cells, self.places(frame.cells), whole, where, tokens.shape[1], seen)

    def _age(self, ago: int) -> int:
        """Which of the rows for ages is that of a frame *ago* in which things were shown."""
        return self.memories - 1

    def _ages(self, ages: list[int], most: int, like: torch.Tensor) -> torch.Tensor:
        """How long ago, as sines and cosines of falling frequency: ages x C."""
        width = self.obj_ptr_tpos_proj.in_features // 2
        steps = torch.arange(width, device=like.device) // 2 * 2 / width
        angles = torch.tensor(ages, dtype=torch.float32, device=like.device)[:, None] / max(most - 1, 1) / THETA**steps
        return self.obj_ptr_tpos_proj(torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype))

    def _mask_to_remember(self, masks: torch.Tensor) -> torch.Tensor:
        return masks.sigmoid() * self.mask_gain - self.mask_gain / 2


class SAM3Tracker(Tracker):
    """SAM 3's, which follows each thing on its own."""

    def __init__(self, sizes: Mapping[str, Any], made: dict[str, Any]) -> None:
        super().__init__(sizes, False, 1, made)
        _, kept = layers_of(made)
        d_model, mem_dim = sizes["d_model"], sizes["mem_dim"]
        self.no_mem_embed = _parameter(1, 1, d_model, **kept)
        self.no_obj_embed_spatial, self.no_obj_ptr = _parameter(1, mem_dim, **kept), _parameter(1, d_model, **kept)

    def without_memory(self, cells: torch.Tensor) -> torch.Tensor:
        return cells + cast_to_input(self.no_mem_embed, cells)[0, :, :, None, None]

    def _pointers(self, pointers: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return torch.where(there, pointers, cast_to_input(self.no_obj_ptr, pointers))

    def show(self, frame: Frame, masks: torch.Tensor) -> tuple[Drawn, Remembered]:
        """The things that *masks* (N x 1 x S x S, 0 or 1) show in *frame*."""
        return self._remembered(frame, self.draw_given(frame.cells, frame.larger, masks))

    def follow(self, frame: Frame, number: int, frames: int, track: Track, things: int) -> tuple[Drawn, Remembered]:
        """The *things* in frame *number* of *frames*."""
        cells = self.looking_back(frame, number, frames, track, things)
        return self._remembered(frame, self.draw(cells, frame.larger, Prompt(), things))

    def _remembered(self, frame: Frame, drawn: Drawn) -> tuple[Drawn, Remembered]:
        low = without_specks(drawn.low, SPECK)
        drawn = Drawn(low, enlarged(low, self.image_size), drawn.pointers, drawn.scores)
        features, places = self.maskmem_backbone(frame.cells, self._mask_to_remember(drawn.high))
        hidden = (drawn.scores <= 0).to(features)[..., None, None]
        features = features + hidden * cast_to_input(self.no_obj_embed_spatial, features)[..., None, None]
        pointers = drawn.pointers.unflatten(1, (-1, features.shape[1]))
        return drawn, Remembered(features, places, pointers, frame.cells)


class SAM31Tracker(Tracker):
    """SAM 3.1's, which follows *num_multiplex* things at once."""

    prefix = "interactive_"
    mask_gain = 2.0

    def __init__(self, sizes: Mapping[str, Any], made: dict[str, Any]) -> None:
        things = sizes["num_multiplex"]
        super().__init__(sizes, True, 2 * things, made)
        operations, kept = layers_of(made)
        self.things = things
        d_model, mem_dim = sizes["d_model"], sizes["mem_dim"]
        self.sam_mask_decoder = MultiplexMaskDecoder(d_model, sizes["dim_ff"], self.things, **made)
        self.no_obj_embed_spatial = _parameter(self.things, mem_dim, **kept)
        self.interactivity_no_mem_embed = _parameter(1, 1, d_model, **kept)
        self.obj_ptr_proj = MLP(d_model, d_model, d_model, 3, **made)
        self.no_obj_ptr_linear = operations.Linear(d_model, d_model, **kept)
        self.output_valid_embed, self.output_invalid_embed = (_parameter(self.things, d_model, **kept) for _ in range(2))
        self.image_pe_layer = PositionEmbeddingRandom(d_model // 2, **kept)

    def without_memory(self, cells: torch.Tensor) -> torch.Tensor:
        return cells + cast_to_input(self.interactivity_no_mem_embed, cells)[0, :, :, None, None]

    def _pointers(self, pointers: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return torch.where(there, pointers, self.no_obj_ptr_linear(pointers))

    def _age(self, ago: int) -> int:
        return self.memories - ago - 1 if 0 < ago < self.memories else self.memories - 1

    def buckets(self, things: int) -> int:
        """How many buckets *things* take."""
        return -(-things // self.things)

    def into_buckets(self, x: torch.Tensor) -> torch.Tensor:
        """N x … to buckets x M x …, with zeros behind the last."""
        return _padded(x, self.buckets(len(x)) * self.things).unflatten(0, (-1, self.things))

    def show(self, frame: Frame, prompted: Frame, masks: torch.Tensor) -> tuple[Drawn, Remembered]:
        """The things that *masks* (N x 1 x S x S, 0 or 1) show in *frame*, whose features for prompts are *prompted*."""
        drawn = self.draw_given(self.without_memory(prompted.cells), prompted.larger, masks)
        fresh = torch.ones(len(masks), dtype=torch.bool, device=masks.device)
        drawn = Drawn(drawn.low, drawn.high, self.into_buckets(drawn.pointers), drawn.scores)
        return drawn, self.remembered(frame, drawn.high, drawn.scores, drawn.pointers, fresh)

    def follow(self, frame: Frame, number: int, frames: int, track: Track, things: int) -> Drawn:
        """The *things* in frame *number* of *frames*."""
        buckets = self.buckets(things)
        cells = self.looking_back(frame, number, frames, track, buckets)
        used = torch.arange(buckets * self.things, device=cells.device).view(buckets, -1, 1) < things
        told = torch.where(used, cast_to_input(self.output_valid_embed, cells), cast_to_input(self.output_invalid_embed, cells))
        places = self.image_pe_layer((cells.shape[-2], cells.shape[-1]), cells)
        found = self.sam_mask_decoder(cells.expand(buckets, -1, -1, -1), places, told, frame.larger)
        masks, quality, seen, scores = (part.flatten(0, 1)[:things] for part in found)
        best = quality.argmax(dim=-1)
        low = torch.where((scores > 0)[..., None], masks[torch.arange(things, device=masks.device), best], NOTHING)[:, None]
        pointers = self._pointers(self.obj_ptr_proj(seen), scores > 0)
        return Drawn(low, enlarged(low, self.image_size), self.into_buckets(pointers), scores)

    def remembered(
        self, frame: Frame, masks: torch.Tensor, scores: torch.Tensor, pointers: torch.Tensor, fresh: torch.Tensor
    ) -> Remembered:
        """*frame* with *masks* (N x 1 x …), with *scores* (N x 1) above 0 for things that are seen. *fresh* (N): which masks a detector or
        a user gave, so that they can be trusted."""
        masks = self._mask_to_remember(masks)[:, 0]
        trusted = fresh.to(masks)[:, None, None].expand_as(masks)
        both = torch.cat([self.into_buckets(masks), self.into_buckets(trusted)], dim=1)
        features, places = self.maskmem_backbone(frame.cells, both)
        hidden = 1 - self.into_buckets((scores > 0).to(features))
        features = features + (hidden * cast_to_input(self.no_obj_embed_spatial, features)).sum(dim=1)[..., None, None]
        return Remembered(features, places, pointers, frame.cells)

    def size_to_remember(self) -> int:
        """The side that masks are remembered at."""
        return self.grid * MASK_CELLS


def _parameter(*shape: int, **kept: Any) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(*shape, **kept), requires_grad=False)


def _padded(x: torch.Tensor, length: int) -> torch.Tensor:
    """*x* with zeros behind its rows, so that there are *length*."""
    return x if len(x) >= length else torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])])
