"""Nodes that cut images into overlapping tiles and join tiles again (part of ``nodes_images``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import MAX_RESOLUTION, socket, whole

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

LARGEST_RESULT = 2 * MAX_RESOLUTION
SMALLEST_TILE = 64
SMALLEST_WEIGHT = 1e-5
_OVERLAP = whole(128, 0, 4096)


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """The start and end of each tile along one side. The last tile ends with the side; starts are at least a quarter tile apart."""
    stride = round(max(tile * 0.25, tile - overlap))
    spans = []
    for position in range(0, length, stride):
        end = min(position + tile, length)
        spans.append((max(0, end - tile), end))
        if end == length:
            break
    return spans


class SplitImageToTileList:
    """Cuts images into a list of overlapping tiles, row by row."""

    RETURN_TYPES = ("IMAGE",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "execute"
    CATEGORY = "image/batch"
    DESCRIPTION = "Cuts images into a list of overlapping tiles."
    SEARCH_ALIASES = ["split image", "tile image", "slice image"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = whole(1024, SMALLEST_TILE, MAX_RESOLUTION)
        return {"required": {"image": socket("IMAGE"), "tile_width": side, "tile_height": side, "overlap": _OVERLAP}}

    @staticmethod
    def get_grid_coords(width: int, height: int, tile_width: int, tile_height: int, overlap: int) -> list[tuple[int, int, int, int]]:
        """(left, top, right, bottom) of each tile, row by row."""
        return [
            (left, top, right, bottom)
            for top, bottom in _spans(height, tile_height, overlap)
            for left, right in _spans(width, tile_width, overlap)
        ]

    @classmethod
    def execute(cls, image: Tensor, tile_width: int, tile_height: int, overlap: int) -> tuple[list[Tensor]]:
        """The tiles, as views of *image*."""
        places = cls.get_grid_coords(image.shape[2], image.shape[1], tile_width, tile_height, overlap)
        return ([image[:, top:bottom, left:right] for left, top, right, bottom in places],)


class ImageMergeTileList:
    """Joins tiles that were cut by ``SplitImageToTileList``, fading from one to the next."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/batch"
    SEARCH_ALIASES = ["split image", "tile image", "slice image"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = whole(1024, SMALLEST_TILE, LARGEST_RESULT)
        return {"required": {"image_list": socket("IMAGE"), "final_width": side, "final_height": side, "overlap": _OVERLAP}}

    @classmethod
    def execute(cls, image_list: list[Tensor], final_width: list[int], final_height: list[int], overlap: list[int]) -> tuple[Tensor]:
        """The joined images; places without a tile stay black."""
        width, height, common = final_width[0], final_height[0], overlap[0]
        first = image_list[0]
        batch, tile_height, tile_width, channels = first.shape
        weights = _tile_weights(first, common)
        canvas = first.new_zeros((batch, height, width, channels))
        total = first.new_zeros((batch, height, width, 1))
        places = SplitImageToTileList.get_grid_coords(width, height, tile_width, tile_height, common)
        for tile, (left, top, right, bottom) in zip(image_list, places):
            rows, columns = min(bottom - top, tile.shape[1]), min(right - left, tile.shape[2])
            area = (slice(None), slice(top, top + rows), slice(left, left + columns))
            canvas[area] += tile[:, :rows, :columns] * weights[:, :rows, :columns]
            total[area] += weights[:, :rows, :columns]
        total[total == 0] = 1.0
        return (canvas / total,)


def _tile_weights(tile: Tensor, overlap: int) -> Tensor:
    """1×H×W×1: half a sine wave along each side where tiles overlap, else 1."""
    if overlap <= 0:
        return tile.new_ones((1, *tile.shape[1:3], 1))
    rows, columns = (
        torch.sin(math.pi * torch.linspace(0, 1, side, device=tile.device, dtype=tile.dtype)).clamp(min=SMALLEST_WEIGHT)
        for side in tile.shape[1:3]
    )
    return (rows[:, None] * columns)[None, ..., None]
