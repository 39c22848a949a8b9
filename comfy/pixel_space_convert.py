"""What models that make pixels have in place of an autoencoder and of a latent format: latents are pictures from -1 to 1."""

from __future__ import annotations

from typing import Any

import torch

from comfy.families.weight_source import WeightSource
from comfy.latent_formats import LatentFormat

MARK = "pixel_space_vae"


class ChromaRadiance(LatentFormat):
    """Pictures, which are their own latents."""

    latent_channels = 3
    spacial_downscale_ratio = 1

    def __init__(self) -> None:
        self.latent_rgb_factors = torch.eye(3).tolist()


class PixelDiTPixel(ChromaRadiance):
    """PixelDiT's."""


class PixelspaceConversionVAE(torch.nn.Module):
    """Gives back what it is given; its one weight only says so."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel_space_vae = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)

    def encode(self, pixels: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """*pixels* (B x colours x height x width) themselves."""
        return pixels

    def decode(self, samples: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """*samples* themselves."""
        return samples


def load_nothing(model: PixelspaceConversionVAE, source: WeightSource, dtype: torch.dtype) -> None:
    """There is nothing to load."""


def bytes_of_pixels(shape: tuple[int, ...], dtype_bytes: int) -> float:
    """Bytes of working memory for pictures of *shape*, B x colours x height x width."""
    return shape[2] * shape[3] * dtype_bytes
