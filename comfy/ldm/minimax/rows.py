"""Latents of videos and sound as the rows that MiniMax H3's network takes, and the times of their noise.

A video's latent is 1 x channels x frames x height x width and gives a row per patch; a sound's is 1 x channels x 2 (left, right) x times
and gives a row per time, those of the left first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

PATCH = (1, 2, 2)
WHOLLY_FREE = 1.0 - 1e-3


def time_shift_sigma(sigma: Any, from_shift: float, to_shift: float) -> Any:
    """The level of noise *sigma* of one shift, at the same place of a schedule that has another."""
    unshifted = sigma / (from_shift + sigma * (1.0 - from_shift))
    return to_shift * unshifted / (1.0 + (to_shift - 1.0) * unshifted)


def patchify_video(latent: torch.Tensor, patch_size: Sequence[int] = PATCH) -> torch.Tensor:
    """A row of values for each patch of *latent*, in the order of frames, lines and columns; the values channel by channel."""
    frames, lines, columns = (length // patch for length, patch in zip(latent.shape[2:], patch_size))
    t, h, w = patch_size
    cells = latent.reshape(*latent.shape[:2], frames, t, lines, h, columns, w)
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, latent.shape[1] * t * h * w)


def unpatchify_video(rows: torch.Tensor, t: int, h: int, w: int, c: int = 24, patch_size: Sequence[int] = PATCH) -> torch.Tensor:
    """The latent of *c* channels whose *t* x *h* x *w* patches are *rows*."""
    cells = rows.reshape(-1, t, h, w, c, *patch_size).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return cells.reshape(len(cells), c, *(count * patch for count, patch in zip((t, h, w), patch_size)))


def pack_audio(latent: torch.Tensor) -> torch.Tensor:
    """A row of channels for each time of the left, then of the right, of the first sound of *latent*."""
    return latent[0].permute(1, 2, 0).flatten(0, 1)


def unpack_audio(rows: torch.Tensor, ch: int = 2) -> torch.Tensor:
    """The latent of *rows*."""
    return rows.reshape(ch, -1, rows.shape[-1]).permute(2, 0, 1)[None]


def mask_row_values(mask: torch.Tensor, latent_t: int, lat_h: int, lat_w: int) -> torch.Tensor | None:
    """How free each row of a video is, 0 to 1: the most that *mask* (frames x height x width) says of its patch; None if all are wholly.

    The sides of *mask* may be smaller than *lat_h* and *lat_w*; the last values count beyond them.
    """
    mask = torch.nn.functional.pad(mask, (0, lat_w - mask.shape[-1], 0, lat_h - mask.shape[-2]), mode="replicate")
    rows = mask.reshape(latent_t, lat_h // PATCH[1], PATCH[1], lat_w // PATCH[2], PATCH[2]).amax(dim=(2, 4)).flatten()
    return None if bool((rows >= WHOLLY_FREE).all()) else rows
