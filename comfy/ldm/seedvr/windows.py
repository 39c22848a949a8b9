"""The windows that SeedVR2's blocks look at a video through, and where in them what lies.

A window has a size that depends on the picture's: about a third of each side of one of 720 lines, and a quarter of 30 latent frames. Every
second block has windows that begin in the middle of those of the others. Shapes: L places of a video, W windows of one size, N places of
one window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

Size = tuple[int, int, int]  # frames, rows, columns

COUNTS: Size = (4, 3, 3)  # of windows in a video of the size that they are made for
AREA = 45 * 80  # places of its pictures
FRAMES = 30
THETA, FASTEST = 10000, 256
AXES = 3  # axes that share the values of a head which are turned


@dataclass(frozen=True, slots=True)
class Windows:
    """Those of one size: ``places`` W x N, each one's numbers in the video."""

    size: Size
    places: torch.Tensor


def windows_of(size: Size, shifted: bool, device: torch.device) -> list[Windows]:
    """The windows of a video of *size*, by their own sizes. Every place is in one of them."""
    numbers = torch.arange(math.prod(size), device=device).view(size)
    found: dict[Size, list[torch.Tensor]] = {}
    axes = [_cuts(length, window, shifted) for length, window in zip(size, window_size(size))]
    for frames in axes[0]:
        for rows in axes[1]:
            for columns in axes[2]:
                part = numbers[frames, rows, columns]
                found.setdefault((part.shape[0], part.shape[1], part.shape[2]), []).append(part.flatten())
    return [Windows(own, torch.stack(parts)) for own, parts in found.items()]


def window_size(size: Size) -> Size:
    """How large the windows of a video of *size* are that are not cut off at its edge."""
    frames, *sides = size
    scale = math.sqrt(AREA / math.prod(sides))
    rows, columns = (max(1, math.ceil(round(side * scale) / count)) for side, count in zip(sides, COUNTS[1:]))
    return math.ceil(min(frames, FRAMES) / COUNTS[0]), rows, columns


def _cuts(length: int, window: int, shifted: bool) -> Iterable[slice]:
    """Where an axis of *length* is cut; *shifted*: half a window earlier, unless one holds all."""
    earlier = 0.5 if shifted and window < length else 0.0
    edges = [max(0, int((number - earlier) * window)) for number in range(math.ceil(length / window) + 2)]
    return [slice(first, min(last, length)) for first, last in zip(edges, edges[1:]) if first < min(last, length)]


def turns_after_text(size: Size, text: int, values: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """How far pairs of *values* of a head are turned: in a window of *size* whose frames are counted on from *text* tokens (N x pairs), and
    in those tokens (text x pairs); by frequencies as texts have them.
    """
    width = values // AXES
    frequencies = THETA ** -(torch.arange(0, width, 2, device=device)[: width // 2].float() / width)
    first = (0, text, 0, 0)
    axes = [torch.arange(start, start + count, device=device).float() for start, count in zip(first, (text, *size))]
    tokens, *window = (axis[:, None] * frequencies for axis in axes)
    return _over(*window), tokens.repeat(1, AXES)


def turns_in_picture(size: Size, values: int, device: Any) -> torch.Tensor:
    """The same in a window of *size* (N x pairs) whose axes go from -1 to 1; by frequencies as pictures have them."""
    frequencies = torch.linspace(1.0, FASTEST / 2, values // AXES // 2, device=device) * math.pi
    return _over(*(torch.linspace(-1, 1, count, device=device)[:, None] * frequencies for count in size))


def _over(frames: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Those of each place of a window, axis by axis: N x 3 x frequencies, flat."""
    shape = (len(frames), len(rows), len(columns), -1)
    parts = (frames[:, None, None], rows[None, :, None], columns[None, None])
    return torch.cat([part.expand(shape) for part in parts], dim=-1).flatten(0, 2)


def rotations(angles: torch.Tensor) -> torch.Tensor:
    """The matrices of *angles*, … x pairs x 2 x 2."""
    cosines, sines = angles.cos(), angles.sin()
    return torch.stack((cosines, -sines, sines, cosines), dim=-1).unflatten(-1, (2, 2))
