"""How Wan's camera models see where the camera is: a picture of rays per latent frame, as values added to the tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

PIXELS = 8  # along one side of a latent pixel


class WanCamResidualBlock(torch.nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, dim: int, operation_settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        settings = dict(operation_settings or {})
        kept = {name: settings.get(name) for name in ("device", "dtype")}
        self.conv1, self.conv2 = (settings["operations"].Conv2d(dim, dim, kernel_size=3, padding=1, **kept) for _ in range(2))
        self.relu = torch.nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B·frames) x C x rows x columns to the same."""
        return x + self.conv2(self.relu(self.conv1(x)))


class WanCamAdapter(torch.nn.Module):
    """Rays of *in_dim* values per pixel, as *out_dim* values per token."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        num_residual_blocks: int = 1,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        settings = dict(operation_settings or {})
        kept = {name: settings.get(name) for name in ("device", "dtype")}
        self.pixel_unshuffle = torch.nn.PixelUnshuffle(PIXELS)
        self.conv = settings["operations"].Conv2d(in_dim * PIXELS**2, out_dim, kernel_size=kernel_size, stride=stride, **kept)
        blocks = [WanCamResidualBlock(out_dim, settings) for _ in range(num_residual_blocks)]
        self.residual_blocks = torch.nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x *in_dim* x frames x height x width (in pixels) to B x *out_dim* x frames x rows x columns of patches."""
        pictures = self.pixel_unshuffle(x.movedim(2, 1).flatten(0, 1))
        return self.residual_blocks(self.conv(pictures)).unflatten(0, (len(x), -1)).movedim(1, 2)
