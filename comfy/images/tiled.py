"""Applies a function to a large tensor tile by tile, with feathered seams.

Shapes: samples are B×C followed by as many spatial dimensions as the tile has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

Scale = float | Callable[[float], float]


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """The number of tiles into which ``tiled_scale`` cuts a picture of this size, for progress bars. Raises the same ``ValueError``."""
    return len(tile_starts(height, tile_y, overlap)) * len(tile_starts(width, tile_x, overlap))


def tile_starts(length: int, tile: int, overlap: int) -> range:
    """The starts of tiles of size *tile* along a side of *length*. Raises ``ValueError`` when *overlap* leaves no way forward."""
    if length <= tile:
        return range(1)
    if overlap >= tile:
        raise ValueError(
            f"tiles of {tile} that overlap by {overlap} never get across a side of {length}: the overlap must be smaller than the tile"
        )
    return range(0, length - overlap, tile - overlap)


def tiled_scale(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int = 64,
    tile_y: int = 64,
    overlap: int = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: Any = "cpu",
    pbar: Any = None,
) -> Tensor:
    """``tiled_scale_multidim`` for two dimensions, with the tile's width and height as separate arguments."""
    return tiled_scale_multidim(
        samples,
        function,
        (tile_y, tile_x),
        overlap=overlap,
        upscale_amount=upscale_amount,
        out_channels=out_channels,
        output_device=output_device,
        pbar=pbar,
    )


def tiled_scale_multidim(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile: Sequence[int] = (64, 64),
    overlap: int | Sequence[int] = 8,
    upscale_amount: Scale | Sequence[Scale] = 4,
    out_channels: int = 3,
    output_device: Any = "cpu",
    downscale: bool = False,
    index_formulas: Any = None,
    pbar: Any = None,
) -> Tensor:
    """Run *function* on overlapping tiles of every sample and blend the results into one tensor on *output_device*.

    For each spatial dimension, *tile* is the size and *overlap* the overlap in input cells, *upscale_amount* the factor (or a function)
    from input to output lengths, and *index_formulas* the same for positions (default: equal). With *downscale* the factors divide.
    A sample that fits one tile is passed on whole. *pbar* (optional) gets ``update(1)`` per call of *function*. Returns
    float32 B×*out_channels*×…; runs in inference mode in the caller's thread; errors of *function* pass through. Raises ``ValueError``
    when tiles overlap by their size or more, or leave gaps.
    """
    dimensions = len(tile)
    lengths = _per_dimension(upscale_amount, dimensions)
    plan = _Plan(
        tuple(tile),
        _per_dimension(overlap, dimensions),
        lengths,
        lengths if index_formulas is None else _per_dimension(index_formulas, dimensions),
        downscale,
    )
    with torch.inference_mode():
        out_size = plan.scaled(samples.shape[2:])
        output = torch.empty([samples.shape[0], out_channels, *out_size], device=output_device)
        for index in range(samples.shape[0]):
            sample, target = samples[index : index + 1], output[index : index + 1]
            if all(size <= limit for size, limit in zip(sample.shape[2:], tile)):
                target[:] = function(sample).to(output_device)
                _advance(pbar)
                continue
            target.zero_()
            weights = torch.zeros([1, 1, *out_size], device=output_device)
            for corner in itertools.product(*plan.starts(sample.shape[2:])):
                result = function(plan.cut(sample, corner)).to(output_device)
                _advance(pbar)
                _blend(target, weights, result, plan.feathering(result), plan.place(corner))
            if not weights.all():
                raise ValueError(
                    f"tiles of {list(tile)} that overlap by {list(plan.overlap)} leave gaps in the result; sizes and "
                    "overlaps must be multiples of what one cell of the result covers"
                )
            target.div_(weights)
    return output


@dataclass(frozen=True, slots=True)
class _Plan:
    """The layout of the tiles of one call. All tuples have one entry per spatial dimension."""

    tile: tuple[int, ...]
    overlap: tuple[int, ...]
    lengths: tuple[Scale, ...]
    positions: tuple[Scale, ...]
    downscale: bool

    def _apply(self, scale: Scale, value: float) -> int:
        if callable(scale):
            return round(scale(value))
        return round(value / scale if self.downscale else scale * value)

    def scaled(self, size: Sequence[int]) -> list[int]:
        return [self._apply(scale, length) for scale, length in zip(self.lengths, size)]

    def starts(self, size: Sequence[int]) -> list[range]:
        return [tile_starts(length, tile, overlap) for length, tile, overlap in zip(size, self.tile, self.overlap)]

    def cut(self, sample: Tensor, corner: Sequence[int]) -> Tensor:
        for axis, (start, tile) in enumerate(zip(corner, self.tile), start=2):
            sample = sample.narrow(axis, start, min(tile, sample.shape[axis] - start))
        return sample

    def place(self, corner: Sequence[int]) -> list[int]:
        return [self._apply(scale, start) for scale, start in zip(self.positions, corner)]

    def feathering(self, result: Tensor) -> Tensor:
        mask = torch.ones([1, 1, *result.shape[2:]], device=result.device)
        for axis, (scale, overlap) in enumerate(zip(self.lengths, self.overlap), start=2):
            width, length = self._apply(scale, overlap), mask.shape[axis]
            if width >= length:
                continue
            for step in range(width):
                share = (step + 1) / width
                mask.narrow(axis, step, 1).mul_(share)
                mask.narrow(axis, length - 1 - step, 1).mul_(share)
        return mask


def _per_dimension(value: Any, dimensions: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dimensions


def _advance(progress: Any) -> None:
    if progress is not None:
        progress.update(1)


def _blend(target: Tensor, weights: Tensor, result: Tensor, mask: Tensor, place: Sequence[int]) -> None:
    for axis, start in enumerate(place, start=2):
        length = min(result.shape[axis], target.shape[axis] - start)
        target, weights = target.narrow(axis, start, length), weights.narrow(axis, start, length)
        result, mask = result.narrow(axis, 0, length), mask.narrow(axis, 0, length)
    target.add_(result * mask)
    weights.add_(mask)
