"""Boxes: their two forms, and the part of a picture's features that lies in them."""

import math

import torch


def corners(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes as middle and size (… x 4) as left, top, right, bottom."""
    middle, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([middle - size / 2, middle + size / 2], dim=-1)


def roi_align(features: torch.Tensor, boxes: torch.Tensor, side: int) -> torch.Tensor:
    """What of *features* (C x H x W) lies in each of *boxes* (N x 4 corners, in cells), as *side* x *side* means: N x C x side x side.

    Each mean is of as many samples as it covers cells, between whose four neighbours values are interpolated: K. He et al., "Mask R-CNN"
    (2017), in torchvision's first form (not shifted by half a cell). What is more than a cell outside counts as zero.
    """
    height, width = features.shape[-2:]
    found = []
    for left, top, right, bottom in boxes.float().tolist():
        rows = _sampling(top, max(bottom - top, 1.0), height, side, features)
        columns = _sampling(left, max(right - left, 1.0), width, side, features)
        found.append(rows @ features @ columns.mT)
    return torch.stack(found)


def _sampling(start: float, length: float, cells: int, side: int, like: torch.Tensor) -> torch.Tensor:
    """The weights of *cells* in each of *side* means from *start* on: side x cells."""
    samples = max(1, math.ceil(length / side))
    places = start + (torch.arange(side * samples, dtype=torch.float32) + 0.5) * (length / side / samples)
    inside = (places >= -1.0) & (places <= cells)
    places = places.clamp(0, cells - 1)
    low = places.floor().long()
    share = places - low
    weights = torch.zeros(side * samples, cells)
    numbers = torch.arange(len(places))
    weights[numbers, low] += (1 - share) * inside
    weights[numbers, (low + 1).clamp(max=cells - 1)] += share * inside
    return weights.unflatten(0, (side, samples)).mean(dim=1).to(like)
