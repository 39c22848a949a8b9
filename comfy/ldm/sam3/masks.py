"""Masks of several things: how far they overlap, small holes in them, and how they are kept in bits.

Masks are values before the sigmoid (N x H x W): a thing is where they are above 0.
"""

import numpy as np
import torch
from scipy import ndimage

FILLED, REMOVED = 0.1, -0.1  # the values of what is filled, and of what is taken away
BITS = 8


def overlap(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """How far each of *some* and each of *others* overlap, from 0 to 1: what both share by what both cover, or by the smaller if that is
    more."""
    first, second = ((masks > 0).float().flatten(1) for masks in (some, others))
    shared = first @ second.T
    areas, other_areas = first.sum(1, keepdim=True), second.sum(1)[None]
    both = (areas + other_areas - shared).clamp(min=1)
    return torch.maximum(shared / both, shared / torch.minimum(areas, other_areas).clamp(min=1))


def without_doubles(masks: torch.Tensor, scores: torch.Tensor, most: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks and scores, the surest first, without those that overlap surer ones by *most*."""
    order = scores.argsort(descending=True)
    masks, scores = masks[order], scores[order]
    overlaps = overlap(masks, masks).cpu()
    kept: list[int] = []
    for number in range(len(masks)):
        if not kept or overlaps[number, kept].max() < most:
            kept.append(number)
    return masks[kept], scores[kept]


def without_specks(masks: torch.Tensor, max_area: int) -> torch.Tensor:
    """*masks* (N x 1 x H x W) with holes of up to *max_area* filled, and then parts of up to that, or half of all there is, taken away.

    Cells belong together where they share a side.
    """
    holes = torch.stack([_areas(mask[0] <= 0) for mask in masks])[:, None].to(masks.device)
    masks = torch.where((masks <= 0) & (holes <= max_area), masks.new_tensor(FILLED), masks)
    there = masks > 0
    limits = (there.sum(dim=(2, 3), keepdim=True) // 2).clamp(max=max_area)
    parts = torch.stack([_areas(mask[0]) for mask in there])[:, None].to(masks.device)
    return torch.where(there & (parts <= limits), masks.new_tensor(REMOVED), masks)


def _areas(shown: torch.Tensor) -> torch.Tensor:
    """For each cell of *shown* (H x W, true or false) how many the part has that it is in; those of what is not shown do not count."""
    labels, _ = ndimage.label(shown.cpu().numpy())
    return torch.from_numpy(np.bincount(labels.ravel())[labels])


def pack_masks(masks: torch.Tensor) -> torch.Tensor:
    """Where *masks* (… x W, W a multiple of 8) are above 0, in bits: … x W/8, uint8."""
    shown = (masks > 0).unflatten(-1, (-1, BITS)).to(torch.uint8)
    weights = 1 << torch.arange(BITS, device=masks.device)
    return (shown * weights).sum(-1).to(torch.uint8)


def unpack_masks(packed: torch.Tensor) -> torch.Tensor:
    """What :func:`pack_masks` packed: … x W, bool."""
    weights = (1 << torch.arange(BITS, device=packed.device)).to(torch.uint8)
    return (packed.unsqueeze(-1) & weights).bool().flatten(-2)
