"""Matching the colours of one picture to another's: E. Reinhard et al., "Color Transfer between Images" (2001), F. Pitié and A. Kokaram,
"The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer" (2007), and histogram matching.

Colours are C×N tensors, float32, of one frame; the first two work in CIE L*a*b* (D65, 2°).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

LEVELS = 256
SMALLEST = 1e-6  # standard deviations are at least this
# ITU-R BT.709 primaries, D65: red, green and blue light to XYZ; then the white point.
RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)
# CIE L*a*b*: below the first a line takes the place of the cube root; slope and offset of the line.
KNEE, SLOPE, OFFSET = 0.008856, 7.787, 4.0 / 29.0
KNEE_OF_ROOT = 0.2068966
Transform = Callable[["Tensor"], "Tensor"]
Statistics = tuple["Tensor", "Tensor"]


def rgb_to_lab(colours: Tensor) -> Tensor:
    """L*a*b* of 3×N sRGB *colours*."""
    light = torch.where(colours > 0.04045, ((colours.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, colours / 12.92)
    xyz = colours.new_tensor(RGB_TO_XYZ) @ light / colours.new_tensor(WHITE).unsqueeze(1)
    x, y, z = torch.where(xyz > KNEE, xyz.clamp(min=KNEE) ** (1 / 3), SLOPE * xyz + OFFSET)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)])


def lab_to_rgb(colours: Tensor) -> Tensor:
    """sRGB, clipped to 0…1, of 3×N L*a*b* *colours*."""
    y = (colours[0] + 16.0) / 116.0
    roots = torch.stack([colours[1] / 500.0 + y, y, (y - colours[2] / 200.0).clamp(min=0.0)])
    xyz = torch.where(roots > KNEE_OF_ROOT, roots**3, (roots - OFFSET) / SLOPE) * colours.new_tensor(WHITE).unsqueeze(1)
    light = torch.linalg.inv(torch.tensor(RGB_TO_XYZ, dtype=torch.float64)).to(colours) @ xyz
    return torch.where(light > 0.0031308, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * light).clamp(0.0, 1.0)


def reinhard_statistics(frames: Sequence[Tensor]) -> Statistics:
    """Mean and standard deviation of each channel (3×1) over equally large *frames*, which are read twice."""
    mean = _mean_of(frame.mean(dim=1, keepdim=True) for frame in frames)
    variance = _mean_of(((frame - mean) ** 2).mean(dim=1, keepdim=True) for frame in frames)
    return mean, variance.sqrt().clamp(min=SMALLEST)


def reinhard(own: Statistics, wanted: Statistics) -> Transform:
    """Colours with the statistics *own* to such with *wanted*, each channel alone."""
    scale = wanted[1] / own[1]
    return lambda colours: (colours - own[0]) * scale + wanted[0]


def mkl_statistics(frames: Sequence[Tensor]) -> Statistics:
    """Mean (3×1) and covariance (3×3) over equally large *frames*, which are read twice."""
    mean = _mean_of(frame.mean(dim=1, keepdim=True) for frame in frames)
    return mean, _mean_of((frame - mean) @ (frame - mean).T / frame.shape[1] for frame in frames)


def mkl(own: Statistics, wanted: Statistics) -> Transform:
    """Colours with the statistics *own* to such with *wanted*, by the linear map that moves colours least."""
    values, vectors = torch.linalg.eigh(own[1])
    deviations = values.clamp(min=0).sqrt().clamp(min=SMALLEST)
    spread, narrowed = vectors * deviations, vectors / deviations
    inner_values, inner_vectors = torch.linalg.eigh(spread.T @ wanted[1] @ spread)
    root = (inner_vectors * inner_values.clamp(min=0).sqrt()) @ inner_vectors.T
    matrix = narrowed @ root @ narrowed.T
    return lambda colours: matrix @ (colours - own[0]) + wanted[0]


def level_shares(frames: Sequence[Tensor]) -> Tensor:
    """For each channel (C×256) which share of the values in all *frames* is at most as high as a level."""
    counts: Any = sum(torch.stack([torch.bincount(channel, minlength=LEVELS) for channel in _levels(frame)]) for frame in frames)
    shares = counts.cumsum(1).to(frames[0])
    return shares / shares[:, -1:]


def histogram(own: Tensor, wanted: Tensor) -> Transform:
    """Values with the :func:`level_shares` *own* to such with *wanted*."""
    levels = torch.searchsorted(wanted, own).clamp(max=LEVELS - 1).to(own) / (LEVELS - 1)
    return lambda colours: levels.gather(1, _levels(colours))


def _mean_of(values: Iterable[Tensor]) -> Tensor:
    """Of as many tensors as there are, one in memory at a time."""
    count, total = 0, torch.zeros(())
    for value in values:
        count, total = count + 1, value + total.to(value)
    return total / count


def _levels(frame: Tensor) -> Tensor:
    return (frame * (LEVELS - 1)).long().clamp(0, LEVELS - 1)
