"""Going through videos in tiles of rows and columns, of all frames each, which fade into each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from comfy.progress_bar import ProgressBar

Span = tuple[int, int]  # first and end


def in_faded_tiles(
    video: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor], tile: Span, seam: Span, out_of: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """The results of *run* for tiles of *video* (B x C x frames x rows x columns), put together on *device* in float32.

    Tells the progress of each tile, and raises what its hook raises, as when a prompt is cancelled.

    *tile* and *seam*: rows and columns of a tile, and of what two share. *out_of*: (a, b) for results a / b times as long along both.
    """
    rows, columns = (list(_spans(length, size, shared)) for length, size, shared in zip(video.shape[3:], tile, seam, strict=True))
    progress = ProgressBar(len(rows) * len(columns))
    if len(rows) == len(columns) == 1:
        made = run(video).to(device)
        progress.update(1)
        return made
    whole = total = None
    for top, bottom in rows:
        for left, right in columns:
            made = run(video[..., top:bottom, left:right]).to(device, torch.float32)
            if whole is None or total is None:
                sides = [length * out_of[0] // out_of[1] for length in video.shape[3:]]
                whole, total = made.new_zeros((*made.shape[:3], *sides)), made.new_zeros(sides)
            spans = ((top, bottom, video.shape[3], seam[0], made.shape[3]), (left, right, video.shape[4], seam[1], made.shape[4]))
            down, across = (_weights(*span, out_of, device) for span in spans)
            share = down[:, None] * across
            y, x = (first * out_of[0] // out_of[1] for first in (top, left))
            place = (slice(y, y + made.shape[3]), slice(x, x + made.shape[4]))
            whole[..., place[0], place[1]] += made * share
            total[place] += share
            progress.update(1)
    assert whole is not None and total is not None
    return whole.div_(total.clamp(min=1e-6))


def _spans(length: int, tile: int, seam: int) -> Iterator[Span]:
    for first in range(0, length, max(1, tile - seam)):
        end = min(first + tile, length)
        if not first or end - first > seam:
            yield first, end


def _weights(first: int, end: int, length: int, seam: int, made: int, out_of: tuple[int, int], device: torch.device) -> torch.Tensor:
    """How much each of *made* results of a tile from *first* to *end* counts: less and less towards seams."""
    weights = torch.ones(made, device=device)
    faded = min(seam * out_of[0] // out_of[1], made // 2)
    if faded:
        ramp = 0.5 - 0.5 * torch.cos(torch.linspace(0, 1, faded, device=device) * math.pi)
        if first:
            weights[:faded] = ramp
        if end < length:
            weights[-faded:] = 1.0 - ramp
    return weights
