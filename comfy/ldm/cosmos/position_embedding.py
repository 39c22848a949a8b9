"""Positions of Cosmos models: turns of queries and keys, and what Cosmos 1 has learned for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

THETA = 10000.0


def normalize(x: torch.Tensor, dim: int | Sequence[int] | None = None, eps: float = 0.0) -> torch.Tensor:
    """*x*, whose numbers along *dim* (None: of each item) are made 1 in the root of the mean of their squares."""
    dims = tuple(range(1, x.ndim)) if dim is None else dim
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    return x / (eps + norm * (norm.numel() / x.numel()) ** 0.5).to(x.dtype)


class VideoPositionEmb(torch.nn.Module):
    """What tokens are told of their places; a subclass defines ``generate_embeddings``."""

    def forward(self, x: torch.Tensor, fps: Any = None, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """That of tokens *x*, B x frames x rows x columns x C."""
        return self.generate_embeddings(x.shape, fps=fps, device=device, dtype=dtype)

    def generate_embeddings(
        self, sizes: Sequence[int], fps: Any = None, device: Any = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """That of tokens of *sizes* (batch, frames, rows, columns, …)."""
        raise NotImplementedError


class VideoRopePosition3DEmb(VideoPositionEmb):
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

    def generate_embeddings(
        self, sizes: Sequence[int], fps: Any = None, device: Any = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
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


class LearnablePosEmbAxis(VideoPositionEmb):
    """A learned vector for each frame, row and column up to the largest; the first ones hold for smaller latents."""

    def __init__(
        self, *, model_channels: int, len_h: int, len_w: int, len_t: int, device: Any = None, dtype: Any = None, **unused: Any
    ) -> None:
        super().__init__()
        self.pos_emb_h, self.pos_emb_w, self.pos_emb_t = (
            torch.nn.Parameter(torch.empty(count, model_channels, device=device, dtype=dtype)) for count in (len_h, len_w, len_t)
        )

    def generate_embeddings(
        self, sizes: Sequence[int], fps: Any = None, device: Any = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """1 x frames x rows x columns x C: the normalised sum of the three. Raises ``ValueError`` for more places than were learned."""
        learned = (self.pos_emb_t, self.pos_emb_h, self.pos_emb_w)
        counts, largest = tuple(sizes[1:4]), tuple(len(axis) for axis in learned)
        if any(count > most for count, most in zip(counts, largest)):
            raise ValueError(
                f"the latent has {counts[0]} frames of {counts[1]}×{counts[2]} cells; this Cosmos model learned positions for at most "
                f"{largest[0]} of {largest[1]}×{largest[2]}: make a shorter or smaller video"
            )
        frames, rows, columns = (axis[:count].to(device=device, dtype=dtype) for axis, count in zip(learned, counts))
        return normalize((frames[:, None, None] + rows[:, None] + columns)[None], dim=-1, eps=1e-6)
