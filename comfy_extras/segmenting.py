"""What SAM 3 finds and outlines in one picture, for nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_extras.box_values import Box

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
prompts = lazy_module("comfy.ldm.sam3.prompts")
torch = lazy_module("torch")

AROUND = 0.1  # of a box's sides: how much more is cut out on each side to draw a mask again
WORKING_BYTES = 1 << 30  # that one picture takes, beside the weights
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Text:
    """One thing that is looked for: the states of its text, which of them are text, and how many are wanted at most."""

    states: Tensor
    mask: Tensor
    most: int


class Segmenter:
    """A model of SAM 3 on its device. Raises ``ValueError`` for a model of another family.

    *threshold*: how sure finds must be. *again*: how often masks are drawn again from themselves.
    """

    def __init__(self, model: Any, threshold: float = 0.5, again: int = 2) -> None:
        self.network = model.model.diffusion_model
        if not hasattr(self.network, "forward_video"):
            raise ValueError(f"{model.model.said()} segments nothing: load a checkpoint of SAM 3 or SAM 3.1")
        management.load_models_gpu([model], memory_required=WORKING_BYTES)
        self.device, self.dtype = model.load_device, model.model.get_dtype_inference()
        self.threshold, self.again, self.side = threshold, again, self.network.image_size

    def segment(
        self, picture: Tensor, texts: list[Text], boxes: list[Box], points: tuple[Points, Points]
    ) -> tuple[list[Tensor], list[Box]]:
        """Masks (height x width, 0 or 1) of what *picture* (height x width x channels) shows, and the boxes of what texts found.

        *points* (those on it, those beside it) mean one thing, *boxes* one each, or, with *texts*, some of what these name.
        """
        trunk = self._look(picture)
        masks, found = [], []
        if any(points):
            masks.append(self._pointed(trunk, picture, points))
        if boxes and not texts:
            masks += [self._boxed(trunk, picture, box) for box in boxes]
        for text in texts:
            own, frame = self._named(trunk, picture, text, boxes)
            masks += own
            found += frame
        return masks, found

    def _look(self, picture: Tensor) -> Tensor:
        scaled = comfy.utils.common_upscale(picture[None, ..., :3].movedim(-1, 1), self.side, self.side, "bilinear", "disabled")
        return self.network.look(scaled.to(self.device, self.dtype))

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    def _pointed(self, trunk: Tensor, picture: Tensor, points: tuple[Points, Points]) -> Tensor:
        height, width = picture.shape[:2]
        places = [[x / width * self.side, y / height * self.side] for x, y in (*points[0], *points[1])]
        labels = torch.tensor([[1] * len(points[0]) + [0] * len(points[1])], device=self.device)
        return self._drawn(trunk, picture, prompts.Prompt(points=self._tensor([places]), labels=labels))

    def _boxed(self, trunk: Tensor, picture: Tensor, box: Box) -> Tensor:
        height, width = picture.shape[:2]
        left, top, right, bottom = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        corners = [[left / width * self.side, top / height * self.side], [right / width * self.side, bottom / height * self.side]]
        return self._drawn(trunk, picture, prompts.Prompt(box=self._tensor([corners])))

    def _drawn(self, trunk: Tensor, picture: Tensor, prompt: Any) -> Tensor:
        mask = self.network.draw(trunk, prompt)
        for _ in range(self.again - 1):
            mask = self.network.draw(trunk, prompts.Prompt(mask=mask))
        return (_scaled(mask, picture.shape[:2])[0, 0] > 0).float()

    def _named(self, trunk: Tensor, picture: Tensor, text: Text, boxes: list[Box]) -> tuple[list[Tensor], list[Box]]:
        height, width = picture.shape[:2]
        shares = [
            [(box["x"] + box["width"] / 2) / width, (box["y"] + box["height"] / 2) / height, box["width"] / width, box["height"] / height]
            for box in boxes
        ]
        detector = self.network.detector
        found = detector(trunk, detector.resized(text.states), text.mask, self._tensor([shares]) if shares else None)
        scores = found.scores[0].sigmoid()
        kept = (scores > self.threshold).nonzero()[:, 0]
        kept = kept[scores[kept].argsort(descending=True)][: text.most]
        edges = found.boxes[0, kept] * self._tensor([width, height, width, height])
        masks, frame = [], []
        for mask, score, (left, top, right, bottom) in zip(found.masks[0, kept], scores[kept].tolist(), edges.float().tolist()):
            frame.append({"x": left, "y": top, "width": right - left, "height": bottom - top, "score": score})
            masks.append(self._refined(picture, _scaled(mask[None, None], (height, width)), (left, top, right, bottom)))
        return masks, frame

    def _refined(self, picture: Tensor, mask: Tensor, box: tuple[float, float, float, float]) -> Tensor:
        """*mask* (1 x 1 x height x width) with what is drawn of it in its box alone, where that can be cut out."""
        height, width = picture.shape[:2]
        left, top, right, bottom = box
        aside, above = (right - left) * AROUND, (bottom - top) * AROUND
        columns = slice(max(0, int(left - aside)), min(width, int(right + aside)))
        rows = slice(max(0, int(top - above)), min(height, int(bottom + above)))
        there = mask[0, 0] > 0
        if self.again > 0 and columns.start < columns.stop and rows.start < rows.stop:
            trunk, again = self._look(picture[rows, columns]), mask[..., rows, columns]
            for _ in range(self.again):
                again = self.network.draw(trunk, prompts.Prompt(mask=_scaled(again, (self.side, self.side))))
            there[rows, columns] |= _scaled(again, (rows.stop - rows.start, columns.stop - columns.start))[0, 0] > 0
        return there.float()


def texts_of(conditioning: Any, segmenter: Segmenter) -> list[Text]:
    """What *conditioning* (None: nothing) names, on the model's device."""
    if not conditioning:
        return []
    states, values = conditioning[0]
    alone = {"cond": states, "attention_mask": values.get("attention_mask")}
    texts = []
    for one in values.get("sam3_multi_cond") or [alone]:
        own, mask = one["cond"].to(segmenter.device, segmenter.dtype), one["attention_mask"]
        mask = torch.ones(own.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        texts.append(Text(own, mask.to(segmenter.device), one.get("max_detections", 1)))
    return texts


def _scaled(mask: Tensor, size: Any) -> Tensor:
    return torch.nn.functional.interpolate(mask, size=tuple(size), mode="bilinear", align_corners=False)
