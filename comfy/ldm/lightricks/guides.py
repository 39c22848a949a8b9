"""How strongly LTX's video looks at frames that guide it, and these at it: masks of attention.

Tokens of guides stand at the end of the video's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention

log = logging.getLogger(__name__)

Entry = Mapping[str, Any]


class GuideAttentionMask:
    """Two masks: of the video's tokens, and of the guides', which are weighted alike when they look at the video.

    The tokens of guides are those from *guide_start* on, *tracked_count* of *total_tokens*; *tracked_weights* (1 x *tracked_count*) says
    how much each counts: nothing at 0, as usual at 1.
    """

    __slots__ = ("guide_start", "noisy_mask", "tracked_count", "tracked_mask")

    def __init__(self, total_tokens: int, guide_start: int, tracked_count: int, tracked_weights: torch.Tensor) -> None:
        least = torch.finfo(tracked_weights.dtype)
        added = torch.where(tracked_weights > 0, tracked_weights.clamp(min=least.tiny).log(), least.min)
        self.guide_start, self.tracked_count = guide_start, tracked_count
        self.noisy_mask = added.new_zeros((1, 1, 1, total_tokens))
        self.noisy_mask[..., guide_start : guide_start + tracked_count] = added.view(1, 1, 1, -1)
        self.tracked_mask = added.new_zeros((1, 1, tracked_count, total_tokens))
        self.tracked_mask[..., :guide_start] = added.view(1, 1, -1, 1)


def attend_with_guides(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, mask: GuideAttentionMask, **settings: Any
) -> torch.Tensor:
    """Attention (B x N x C) under *mask*: each group of queries apart, so that no mask of all tokens by all tokens is needed."""
    attend = comfy.ldm.modules.attention.optimized_attention
    ends = (mask.guide_start, mask.guide_start + mask.tracked_count, query.shape[1])
    masks = (mask.noisy_mask, mask.tracked_mask, None)
    parts, begin = [], 0
    for end, own in zip(ends, masks):
        if end > begin:
            given = {} if own is None else {"mask": own.expand(-1, -1, end - begin, -1), "low_precision_attention": False}
            parts.append(attend(query[:, begin:end], key, value, heads, **given, **settings))
        begin = end
    return torch.cat(parts, dim=1)


def guide_mask(
    entries: Sequence[Entry] | None, total_tokens: int, guide_tokens: int, device: Any, dtype: torch.dtype
) -> GuideAttentionMask | None:
    """The masks for guides *entries*, in their order; None where each counts as usual.

    An entry holds ``surviving_count`` tokens, ``strength``, and may hold a ``pixel_mask`` (1 x 1 x frames x height x width) with the
    ``latent_shape`` (frames, height, width) that it belongs to.
    """
    if not entries or not guide_tokens:
        return None
    if all(entry["strength"] == 1.0 and entry.get("pixel_mask") is None for entry in entries):
        return None
    weights = [_weights(entry, device, dtype) for entry in entries if entry["surviving_count"]]
    if not weights:
        return None
    tracked = torch.cat(weights, dim=1)
    if bool((tracked == 1.0).all()):
        return None
    return GuideAttentionMask(total_tokens, total_tokens - guide_tokens, tracked.shape[1], tracked)


def _weights(entry: Entry, device: Any, dtype: torch.dtype) -> torch.Tensor:
    count, strength = entry["surviving_count"], entry["strength"]
    mask, shape = entry.get("pixel_mask"), entry.get("latent_shape")
    if mask is None or shape is None:
        return torch.full((1, count), strength, device=device, dtype=dtype)
    tokens = mask_of_cells(mask.to(device=device, dtype=dtype), *shape)
    if len(tokens) > 1 and not bool((tokens == tokens[:1]).all()):
        log.warning("the masks of a guide differ within the batch; the first one counts for all")
    return tokens[:1, :count] * strength


def mask_of_cells(mask: torch.Tensor, frames: int, height: int, width: int) -> torch.Tensor:
    """*mask* (B x 1 x frames x height x width of pixels) for the cells of such a latent: B x cells.

    A cell has the mean of its pixels; the first cell of time spans one frame, the others as many as there are for each.
    """
    small = F.interpolate(mask.transpose(1, 2).flatten(0, 1), size=(height, width), mode="area")
    by_frame = small.reshape(len(mask), mask.shape[2], height, width)
    if frames == 1:
        return by_frame[:, :1].flatten(1)
    if by_frame.shape[1] == 1:
        return by_frame.expand(-1, frames, -1, -1).flatten(1)
    first, later = by_frame[:, :1], by_frame[:, 1:]
    each = later.shape[1] // (frames - 1)
    if each < 1:
        picks = torch.arange(frames - 1, device=mask.device) * later.shape[1] // (frames - 1)
        later = later[:, picks]
    else:
        later = later[:, : (frames - 1) * each].unflatten(1, (frames - 1, each)).mean(dim=2)
    return torch.cat((first, later), dim=1).flatten(1)
