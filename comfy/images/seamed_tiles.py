"""Going through pictures and latents in tiles whose seams are blended."""

from __future__ import annotations

from collections.abc import Callable

import torch

TILE, TILE_SEAM = 16, 4  # cells of a tile along one side, and the fewest that two share


def in_tiles(x: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor], from_side: int, to_side: int) -> torch.Tensor:
    """The results of *run* for tiles of *x*, put together: what two tiles share goes over from the one to the other.

    A cell of a latent is *from_side* wide in *x* and *to_side* in the results.
    """
    rows, columns = (tiles_along(-(-length // from_side)) for length in x.shape[-2:])
    if len(rows) == len(columns) == 1:
        return run(x)
    whole: torch.Tensor | None = None
    above: list[torch.Tensor] = []
    for row, (top, seam_below) in enumerate(rows):
        below, left = [], None
        for column, (start, seam_right) in enumerate(columns):
            lines, places = (slice(first * from_side, (first + TILE) * from_side) for first in (top, start))
            tile = run(x[..., lines, places])
            bottom = tile[..., tile.shape[-2] - seam_below * to_side :, :].clone()
            right = tile[..., tile.shape[-1] - seam_right * to_side :].clone()
            tile = blended(above[column], tile, -2) if row else tile
            tile = tile if left is None else blended(left, tile, -1)
            if whole is None:
                whole = tile.new_empty((*tile.shape[:-2], *(-(-length // from_side) * to_side for length in x.shape[-2:])))
            whole[..., top * to_side : top * to_side + tile.shape[-2], start * to_side : start * to_side + tile.shape[-1]] = tile
            below.append(bottom)
            left = right
        above = below
    assert whole is not None
    return whole


def tiles_along(cells: int) -> list[tuple[int, int]]:
    """First cell of each tile along a side of *cells*, and how many it shares with the next: as few tiles as possible, seams as even as
    whole cells allow.
    """
    count = 1 if cells <= TILE else -(-(cells - TILE_SEAM) // (TILE - TILE_SEAM))
    spare = max(0, TILE * count - TILE_SEAM * (count - 1) - cells)
    seams = [TILE_SEAM + spare // (count - 1) + (index < spare % (count - 1)) for index in range(count - 1)]
    starts = [0]
    for seam in seams:
        starts.append(starts[-1] + TILE - seam)
    return list(zip(starts, [*seams, 0]))


def blended(before: torch.Tensor, after: torch.Tensor, axis: int) -> torch.Tensor:
    """*after*, whose beginning along *axis* goes over from *before*, the end of what comes before it, to itself."""
    length = min(before.shape[axis], after.shape[axis])
    shape = [1] * after.ndim
    shape[axis] = length
    share = (torch.arange(length, device=after.device, dtype=after.dtype) / length).view(shape)
    begin = before.narrow(axis, before.shape[axis] - length, length) * (1 - share) + after.narrow(axis, 0, length) * share
    return torch.cat((begin, after.narrow(axis, length, after.shape[axis] - length)), dim=axis)
