"""Determines where in the latent a conditioning acts, and how strongly: areas, masks, time ranges.

A conditioning is a dict. Its ``area`` lists the size and then the offset in every spatial dimension, in latent cells; with a leading
"percentage" they are shares of the latent. ``mask`` is B×H×W (B×T×H×W for video).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import comfy.utils
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

torch = lazy_module("torch")

Cond = dict[str, Any]

FEATHER_CELLS = 8  # an area without a mask fades in over this many cells at edges inside the latent
SMALLEST_AREA = 8
WHOLE_LENGTH = 2**31  # the size in dimensions that the area does not mention; cut to the latent later


class PlacedCond(NamedTuple):
    """One conditioning, cut out for one model call: its part of the latent and the weight of its result there."""

    input_x: Tensor
    mult: Tensor
    conditioning: dict[str, Any]
    area: list[int] | None
    control: Any
    patches: dict[str, list[Any]] | None
    uuid: Any
    hooks: Any


def add_area_dims(area: Sequence[int], num_dims: int) -> list[int]:
    """*area* extended to *num_dims* dimensions by leading ones that span everything."""
    missing = max(0, num_dims - len(area) // 2)
    half = len(area) // 2
    return [WHOLE_LENGTH] * missing + list(area[:half]) + [0] * missing + list(area[half:])


def place_cond(conds: Cond, x_in: Tensor, timestep_in: Tensor) -> PlacedCond | None:
    """Cut *conds* out for the latent *x_in* (B×C×spatial) at the sigmas *timestep_in* (B); None outside its time range."""
    if not _is_active(conds, timestep_in[0]):
        return None
    area = _area_within(conds["area"], x_in.shape[2:]) if "area" in conds else None
    cut = x_in if area is None else narrow_to(x_in, area)
    weight = _mask_weight(conds, cut, area) if "mask" in conds else torch.ones_like(cut)
    weight = weight * conds.get("strength", 1.0)
    if area is not None and "mask" not in conds:
        _feather(weight, area, x_in.shape[2:])
    model_conds = {name: value.process_cond(batch_size=x_in.shape[0], area=area) for name, value in conds["model_conds"].items()}
    patches = _box_patches(*conds["gligen"], cut) if "gligen" in conds else None
    return PlacedCond(cut, weight, model_conds, area, conds.get("control"), patches, conds["uuid"], conds.get("hooks"))


def _box_patches(kind: str, patcher: Any, boxes: Sequence[Any], latent: Tensor) -> dict[str, list[Any]]:
    """The patches of a GLIGEN model (:mod:`comfy.gligen`) for *latent*, with *boxes* if *kind* is "position", else without any."""
    model = patcher.model
    placed = model.set_position(latent.shape, boxes, latent.device) if kind == "position" else model.set_empty(latent.shape, latent.device)
    return {"middle_patch": [placed]}


def narrow_to(tensor: Tensor, area: Sequence[int]) -> Tensor:
    """The view of *tensor* (B×C×spatial) inside *area*."""
    half = len(area) // 2
    for dimension in range(half):
        tensor = tensor.narrow(dimension + 2, area[half + dimension], area[dimension])
    return tensor


def _is_active(conds: Cond, sigma: Tensor) -> bool:
    return not ("timestep_start" in conds and sigma > conds["timestep_start"]) and not (
        "timestep_end" in conds and sigma < conds["timestep_end"]
    )


def _area_within(area: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """*area* for a latent of spatial *sizes*: with the same number of dimensions, and cut at its far edges."""
    dimensions = len(sizes)
    full = add_area_dims(area, dimensions)
    half = len(full) // 2
    offsets = full[half : half + dimensions]
    return [min(size - offset, length) for size, offset, length in zip(sizes, offsets, full)] + offsets


def _mask_weight(conds: Cond, cut: Tensor, area: list[int] | None) -> Tensor:
    mask = conds["mask"][: cut.shape[0]].unsqueeze(1)
    if area is not None:
        mask = narrow_to(mask, area)
    mask = mask * conds.get("mask_strength", 1.0)
    return mask.repeat(cut.shape[0] // mask.shape[0], cut.shape[1], *[1] * (mask.ndim - 2))


def _feather(weight: Tensor, area: Sequence[int], sizes: Sequence[int]) -> None:
    """Fade *weight* in place towards those edges of *area* that are not edges of the latent."""
    half = len(area) // 2
    for dimension, size in enumerate(sizes):
        length, offset = area[dimension], area[half + dimension]
        width = min(FEATHER_CELLS, length // 4)
        for cell in range(width):
            if offset != 0:
                weight.narrow(dimension + 2, cell, 1).mul_((cell + 1) / width)
            if offset + length < size:
                weight.narrow(dimension + 2, length - 1 - cell, 1).mul_((cell + 1) / width)


def get_mask_aabb(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The bounding boxes of B×H×W *masks* (B×4: left, top, right, bottom, all inclusive), and which masks are empty (B, bool)."""
    boxes = torch.zeros((len(masks), 4), device=masks.device, dtype=torch.int)
    is_empty = torch.zeros(len(masks), device=masks.device, dtype=torch.bool)
    for index, mask in enumerate(masks):
        rows, columns = torch.where(mask != 0)
        if len(rows) == 0:
            is_empty[index] = True
        else:
            boxes[index] = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
    return boxes, is_empty


def resolve_areas_and_cond_masks_multidim(conditions: list[Cond], dims: Sequence[int], device: Any) -> None:
    """Convert areas from shares to cells, and masks to the latent's size and *device*; replaces entries of *conditions*."""
    for index, cond in enumerate(conditions):
        resolved: Cond = {}
        if "area" in cond and cond["area"][0] == "percentage":
            resolved["area"] = _area_from_shares(cond["area"][1:], dims)
        if "mask" in cond:
            resolved["mask"] = mask = _fitting_mask(cond["mask"].to(device=device), dims)
            if cond.get("set_area_to_bounds", False):
                resolved["area"] = _bounds_of(mask)
        if resolved:
            conditions[index] = {**cond, **resolved}


def resolve_areas_and_cond_masks(conditions: list[Cond], h: int, w: int, device: Any) -> None:
    """Deprecated form of :func:`resolve_areas_and_cond_masks_multidim` for pictures."""
    log.warning("comfy.samplers.resolve_areas_and_cond_masks is deprecated; use resolve_areas_and_cond_masks_multidim")
    resolve_areas_and_cond_masks_multidim(conditions, [h, w], device)


def _area_from_shares(shares: Sequence[float], dims: Sequence[int]) -> tuple[int, ...]:
    half = len(shares) // 2
    sizes = tuple(max(1, round(share * length)) for share, length in zip(shares, dims))
    return sizes + tuple(round(share * length) for share, length in zip(shares[half:], dims))


def _fitting_mask(mask: Tensor, dims: Sequence[int]) -> Tensor:
    if mask.ndim == len(dims):
        mask = mask.unsqueeze(0)
    if tuple(mask.shape[1:]) == tuple(dims):
        return mask
    if mask.ndim >= 4:
        return comfy.utils.common_upscale(mask, dims[-1], dims[-2], "bilinear", "none")
    return comfy.utils.common_upscale(mask.unsqueeze(1), dims[-1], dims[-2], "bilinear", "none").squeeze(1)


def _bounds_of(mask: Tensor) -> tuple[int, int, int, int]:
    """The smallest area (height, width, top, left) that contains everything in *mask*; a small corner if the mask is empty."""
    boxes, is_empty = get_mask_aabb(mask.abs().amax(dim=0, keepdim=True))
    if is_empty[0]:
        return SMALLEST_AREA, SMALLEST_AREA, 0, 0
    left, top, right, bottom = boxes[0].tolist()
    return max(SMALLEST_AREA, bottom - top + 1), max(SMALLEST_AREA, right - left + 1), top, left


def create_cond_with_same_area_if_none(conds: list[Cond], c: Cond) -> None:
    """Give *conds* a counterpart of *c* with the same area unless it has one, because guidance needs both sides in every region.

    The counterpart takes the model conditioning of the smallest entry that covers the area.
    """
    if "area" not in c:
        return
    smallest = None
    for candidate in conds:
        if "area" not in candidate:
            smallest = candidate if smallest is None else smallest
        elif _is_inside(c["area"], candidate["area"]) and (
            smallest is None or "area" not in smallest or _cells(candidate["area"]) < _cells(smallest["area"])
        ):
            smallest = candidate
    if smallest is None or smallest.get("area") == c["area"]:
        return
    conds.append({**c, "model_conds": smallest["model_conds"].copy()})


def _cells(area: Sequence[int]) -> int:
    return math.prod(area[: len(area) // 2])


def _is_inside(area: Sequence[int], outer: Sequence[int]) -> bool:
    dimensions = max(len(area), len(outer)) // 2
    inner, around = add_area_dims(area, dimensions), add_area_dims(outer, dimensions)
    return all(
        inner[dimensions + d] >= around[dimensions + d] and inner[d] + inner[dimensions + d] <= around[d] + around[dimensions + d]
        for d in range(dimensions)
    )
