"""Where the tokens of reference pictures stand beside those of the picture that is made."""

from __future__ import annotations

import torch


class ReferencePlaces:
    """The places of reference pictures, one after the other, by one of ComfyUI's methods.

    ``index`` and ``index_timestep_zero``: each is a frame of its own, counted from 1; ``negative_index``: from -1 down; ``offset`` (any
    other name): all share frame 1, each beside or below those before it, where the whole stays squarer.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self._count = 0
        self._height = self._width = 0

    def next(self, latent: torch.Tensor) -> tuple[int, int, int]:
        """Frame, and distances from the top and from the left in latent pixels, for *latent* (B x C x frames x height x width)."""
        self._count += 1
        if self._method in ("index", "index_timestep_zero"):
            return self._count, 0, 0
        if self._method == "negative_index":
            return -self._count, 0, 0
        height, width = latent.shape[-2:]
        beside = height + self._height > width + self._width
        top, left = (0, self._width) if beside else (self._height, 0)
        self._height, self._width = max(self._height, height + top), max(self._width, width + left)
        return 1, top, left
