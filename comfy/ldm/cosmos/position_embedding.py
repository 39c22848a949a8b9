"""Positions of Cosmos models. What earlier models learned is :mod:`comfy.placeholders`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__, "the first Cosmos models", "normalize() VideoPositionEmb LearnablePosEmbAxis:VideoPositionEmb"
)

THETA = 10000.0


class VideoRopePosition3DEmb(torch.nn.Module):
    """Rotations by frame, row and column: a third of a head's pairs each for rows and columns, the rest for frames.

    The ratios stretch the axes by slower turns. With *enable_fps_modulation* frames count by time at *base_fps*.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base_fps: int = 24,
        h_extrapolation_ratio: float = 1.0,
        w_extrapolation_ratio: float = 1.0,
        t_extrapolation_ratio: float = 1.0,
        enable_fps_modulation: bool = True,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.base_fps, self.enable_fps_modulation = base_fps, enable_fps_modulation
        side = head_dim // 6 * 2
        self._widths = (head_dim - 2 * side, side, side)
        ratios = (t_extrapolation_ratio, h_extrapolation_ratio, w_extrapolation_ratio)
        self._thetas = [THETA * ratio ** (width / (width - 2)) for ratio, width in zip(ratios, self._widths)]

    def generate_embeddings(self, sizes: Sequence[int], fps: Any = None, device: Any = None) -> torch.Tensor:
        """(frames · rows · columns) x pairs x 2 x 2, float32, for *sizes* (batch, frames, rows, columns, …)."""
        _, *counts = sizes[:4]
        angles = []
        for axis, (count, width, theta) in enumerate(zip(counts, self._widths, self._thetas)):
            places = torch.arange(count, dtype=torch.float32, device=device)
            if axis == 0 and fps is not None and self.enable_fps_modulation:
                places = places / fps * self.base_fps
            turns = torch.outer(places, 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width))
            shape = [1, 1, 1, turns.shape[1]]
            shape[axis] = count
            angles.append(turns.reshape(shape).expand(*counts, -1))
        joined = torch.cat(angles, dim=-1).flatten(0, 2)
        cosines, sines = joined.cos(), joined.sin()
        return torch.stack((cosines, -sines, sines, cosines), dim=-1).unflatten(-1, (2, 2))

    def forward(self, x: torch.Tensor, fps: Any = None, device: Any = None) -> torch.Tensor:
        """The rotations of tokens *x*, B x frames x rows x columns x C."""
        return self.generate_embeddings(x.shape, fps, device)
