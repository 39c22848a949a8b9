"""Following things through the frames of a video, and finding new ones on the way.

The rules are those of SAM 3's video predictor: what is found and overlaps nothing that is followed is new; what is followed but not found
for some frames is hidden; sure finds correct what is followed. Frames are looked at one by one, and masks kept in bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.model_management
import comfy.utils
from comfy.ldm.sam3.masks import overlap, pack_masks, without_doubles, without_specks
from comfy.ldm.sam3.prompts import NOTHING, enlarged
from comfy.ldm.sam3.tracker import POINTERS, Frame, Remembered, Track

MOST = 64  # things
SAME = 0.5  # two masks that overlap so far are of one thing
SURE = 0.8  # finds at least so sure correct what is followed
SPECK = 16  # cells of a mask that are a speck
CONFUSED = 0.3  # two followed things that overlap so far are told apart by which was hidden last
SHRUNK = 0.3  # a mask that keeps less than this share beside the others is hidden
HIDDEN = -10.0  # the mask of what is hidden for a while
SEEN_AT_MOST, MISSED_AT_MOST, NEW, SHOWN = 8, -4, 1, 8  # how often a thing was found, less how often it was not
NEVER = -1
Where = tuple[Any, torch.dtype]


@dataclass(frozen=True, slots=True)
class Rules:
    """*threshold*: how sure finds must be. *most*: how many things are followed, at most ``MOST`` (0: that). *interval*: frames from one
    search to the next."""

    threshold: float = 0.5
    most: int = 0
    interval: int = 1

    def limit(self) -> int:
        """How many things may be followed."""
        return self.most if 0 < self.most <= MOST else MOST


@dataclass(slots=True)
class Present:
    """A frame's masks, low (N x 1 x H x W) and at the size of the model's pictures, and its pointers."""

    low: torch.Tensor
    high: torch.Tensor
    pointers: torch.Tensor


@dataclass(slots=True)
class Things:
    """What is known of the things that are followed: *scores* of their finds, *seen* (see ``SEEN_AT_MOST``), *hidden*: the last frame that
    each was hidden in."""

    scores: list[float] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    hidden: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, scores: Sequence[float], seen: int) -> None:
        """So many new ones."""
        self.scores += scores
        self.seen += [seen] * len(scores)
        self.hidden = torch.cat([self.hidden, torch.full((len(scores),), NEVER)])

    def count(self, found: set[int]) -> None:
        """After a search that found those in *found*."""
        for number, seen in enumerate(self.seen):
            self.seen[number] = min(SEEN_AT_MOST, seen + 1) if number in found else max(MISSED_AT_MOST, seen - 1)


class Following:
    """One video with SAM 3.1. *prompts*: (tokens, mask) of what is looked for."""

    def __init__(self, model: Any, prompts: Sequence[tuple[torch.Tensor, torch.Tensor]], rules: Rules, frames: int) -> None:
        self.model, self.prompts, self.rules, self.frames = model, prompts, rules, frames
        self.tracker = model.tracker
        self.track, self.things = Track(), Things()

    def run(self, images: torch.Tensor, initial_masks: torch.Tensor | None, where: Where, progress: Any) -> dict[str, Any]:
        """What ``SAM3Model.forward_video`` returns."""
        kept: list[torch.Tensor | None] = []
        for number, trunk in enumerate(_trunks(self.model, images, where)):
            frame = Frame.of(self.model.detector.eyes.followed(trunk))
            searched = bool(self.prompts) and number % max(1, self.rules.interval) == 0 and len(self.things) < self.rules.limit()
            masks, scores = self._search(trunk) if searched else (None, None)
            if number == 0 and initial_masks is not None:
                shown = enlarged(initial_masks.to(*where), self.tracker.image_size) > 0.5
                present: Present | None = self._show(0, frame, trunk, shown, [1.0] * len(shown), SHOWN)
            elif len(self.things):
                present = self._follow(number, frame)
                if masks is not None and scores is not None:
                    self._match(number, frame, present, masks, scores)
            elif masks is not None and scores is not None and len(masks):
                first = slice(self.rules.limit())
                shown = enlarged(masks[first, None], self.tracker.image_size) > 0
                present = self._show(number, frame, trunk, shown, scores[first].tolist(), NEW)
            else:
                present = None
            kept.append(None if present is None else self._packed(present))
            if progress is not None:
                progress.update(1)
        return packed_result(kept, self.things.scores)

    def _search(self, trunk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks (N x H x W) and scores (N) of what the prompts name, the surest first."""
        found = [self.model.detector(trunk, *prompt) for prompt in self.prompts]
        masks, scores = torch.cat([one.masks[0] for one in found]), torch.cat([one.scores[0] for one in found]).sigmoid()
        kept = scores > self.rules.threshold
        masks, scores = masks[kept], scores[kept]
        return without_doubles(masks, scores, SAME) if len(masks) > 1 else (masks, scores)

    def _show(self, number: int, frame: Frame, trunk: torch.Tensor, masks: torch.Tensor, scores: list[float], seen: int) -> Present:
        prompted = Frame.of(self.model.detector.eyes.prompted(trunk))
        drawn, self.track.shown[number] = self.tracker.show(frame, prompted, masks.to(frame.cells))
        self.things.add(scores, seen)
        return Present(drawn.low, drawn.high, drawn.pointers)

    def _follow(self, number: int, frame: Frame) -> Present:
        drawn = self.tracker.follow(frame, number, self.frames, self.track, len(self.things))
        present = Present(without_specks(drawn.low, SPECK), drawn.high, drawn.pointers)
        if len(self.things) > 1:
            self._hide_confused(present.low, number)
        self._remember(number, frame, present)
        self.track.forget_before(number - max(self.tracker.memories, POINTERS))
        return present

    def _hide_confused(self, low: torch.Tensor, number: int) -> None:
        """Of each two things that overlap, hide the one that was hidden later than the other, in place."""
        masks, hidden = low[:, 0], self.things.hidden
        confused = torch.triu(overlap(masks, masks).cpu() >= CONFUSED, diagonal=1)
        first, second = hidden[:, None], hidden[None]
        lost = (confused & (first > second) & (second > NEVER)).any(dim=1) | (confused & (second > first) & (first > NEVER)).any(dim=0)
        hidden[lost | ~(masks > 0).flatten(1).any(dim=1).cpu()] = number
        low[lost.to(low.device)] = HIDDEN

    def _remember(self, number: int, frame: Frame, present: Present, fresh: torch.Tensor | None = None) -> None:
        """Remember the frame's masks, of which *fresh* (N) are trusted; those that are mostly behind others are hidden."""
        low = present.low
        if len(low) > 1:
            masks = low[:, 0]
            in_front = masks.argmax(dim=0, keepdim=True) == torch.arange(len(masks), device=masks.device)[:, None, None]
            before = (masks > 0).sum(dim=(1, 2)).clamp(min=1)
            left = ((masks > 0) & in_front).sum(dim=(1, 2))
            low = torch.where((left / before >= SHRUNK)[:, None, None, None], low, low.clamp(max=HIDDEN))
        masks = enlarged(low, self.tracker.size_to_remember())
        there = torch.where((masks > 0).any(dim=(-1, -2)), 1.0, -1.0)
        trusted = torch.zeros(len(masks), dtype=torch.bool, device=masks.device) if fresh is None else fresh
        remembered: Remembered = self.tracker.remembered(frame, masks, there, present.pointers, trusted)
        self.track.followed[number] = remembered

    def _match(self, number: int, frame: Frame, present: Present, masks: torch.Tensor, scores: torch.Tensor) -> None:
        """Compare what was found with what is followed: correct that, and take up what is new."""
        if not len(masks):
            self.things.count(set())
            return
        found = F.interpolate(masks[:, None], size=present.low.shape[-2:], mode="bilinear", align_corners=False)
        overlaps = overlap(found[:, 0], present.low[:, 0])
        self.things.count(set((overlaps >= SAME).any(dim=0).nonzero()[:, 0].tolist()))
        corrected = False
        for one in range(len(masks)):
            best = int(overlaps[one].argmax())
            if scores[one] >= SURE and overlaps[one, best] >= SAME:
                present.low[best], corrected = found[one], True
                present.high[best] = enlarged(masks[one : one + 1, None], present.high.shape[-1])[0]
        if corrected:
            self._remember(number, frame, present)
        new = overlaps.max(dim=1).values < SAME
        new &= new.cumsum(0) <= self.rules.limit() - len(self.things)
        if not new.any():
            return
        before = len(self.things)
        present.low = torch.cat([present.low, found[new]])
        present.high = torch.cat([present.high, enlarged(masks[new, None], present.high.shape[-1])])
        self.things.add(scores[new].tolist(), NEW)
        self._remember(number, frame, present, torch.arange(len(present.low), device=masks.device) >= before)

    def _packed(self, present: Present) -> torch.Tensor:
        masks = present.high[:, 0]
        if self.prompts:
            missed = torch.tensor([seen <= 0 for seen in self.things.seen], device=masks.device)
            masks = torch.where(missed[:, None, None], NOTHING, masks)
        return pack_masks(masks).to(comfy.model_management.intermediate_device())


def follow_shown(model: Any, images: torch.Tensor, initial_masks: torch.Tensor, where: Where, progress: Any) -> dict[str, Any]:
    """With SAM 3: the things that *initial_masks* show in the first frame, in all of them; as ``SAM3Model.forward_video`` returns it."""
    track, kept, things = Track(), [], len(initial_masks)
    for number, trunk in enumerate(_trunks(model, images, where)):
        frame = Frame.of(model.detector.eyes.followed(trunk))
        if number == 0:
            shown = enlarged(initial_masks.to(*where), model.tracker.image_size) > 0.5
            drawn, track.shown[0] = model.tracker.show(frame, shown.to(frame.cells))
        else:
            drawn, track.followed[number] = model.tracker.follow(frame, number, len(images), track, things)
            track.forget_before(number - max(model.tracker.memories, POINTERS))
        kept.append(pack_masks(drawn.high[:, 0]).to(comfy.model_management.intermediate_device()))
        if progress is not None:
            progress.update(1)
    return packed_result(kept, [1.0] * things)


def packed_result(kept: Sequence[torch.Tensor | None], scores: list[float]) -> dict[str, Any]:
    """Masks of all frames as one tensor, as many as the most that any frame has; those that are missing are empty."""
    there = [masks for masks in kept if masks is not None]
    if not there:
        return {"packed_masks": None, "n_frames": len(kept), "scores": []}
    whole = there[0].new_zeros(len(kept), max(map(len, there)), *there[0].shape[1:])
    for row, masks in zip(whole, kept):
        if masks is not None:
            row[: len(masks)] = masks
    return {"packed_masks": whole, "n_frames": len(kept), "scores": scores}


def _trunks(model: Any, images: torch.Tensor, where: Where) -> Iterator[torch.Tensor]:
    """What the trunk sees in each frame."""
    for image in images:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield model.look(comfy.utils.common_upscale(image[None].to(*where), model.image_size, model.image_size, "bicubic", "disabled"))
