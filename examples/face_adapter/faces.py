"""Stands in for the analysis of faces, which needs weights that may not be shipped: an embedding and key points of a picture.

Both follow from the picture alone. To use a real one, return its embedding and its five key points here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 512
GRID = 16
# The parts of the picture, as (top, bottom, left, right), in which eyes, nose and corners of the mouth are looked for.
REGIONS = ((0.2, 0.5, 0.1, 0.5), (0.2, 0.5, 0.5, 0.9), (0.4, 0.7, 0.3, 0.7), (0.6, 0.9, 0.2, 0.5), (0.6, 0.9, 0.5, 0.8))


def analyse(image: Tensor) -> tuple[Tensor, Tensor]:
    """(embedding of 512 numbers of length 1, five key points x 2 in 0…1) of *image*, 1 x height x width x 3 in 0…1."""
    picture = image[:1, ..., :3].permute(0, 3, 1, 2).float()
    pooled = F.adaptive_avg_pool2d(picture, GRID).flatten()
    projection = torch.randn(CHANNELS, len(pooled), generator=torch.Generator().manual_seed(0))
    embedding = F.normalize(projection @ (pooled - pooled.mean()), dim=0)
    return embedding, torch.stack([_darkest(picture.mean(dim=(0, 1)), region) for region in REGIONS])


def draw(points: Tensor, height: int, width: int) -> Tensor:
    """The picture of key points that the ControlNet is steered by: 1 x height x width x 3, a spot of its own colour each."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    picture = torch.zeros(1, height, width, 3)
    for number, (y, x) in enumerate(points):
        spot = torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.002)
        picture[..., number % 3] = torch.maximum(picture[..., number % 3], spot)
    return picture


def _darkest(brightness: Tensor, region: tuple[float, float, float, float]) -> Tensor:
    height, width = brightness.shape
    top, bottom, left, right = (int(share * side) for share, side in zip(region, (height, height, width, width), strict=True))
    part = brightness[top : max(bottom, top + 1), left : max(right, left + 1)]
    place = int(part.argmin())
    return torch.tensor([(top + place // part.shape[1]) / height, (left + place % part.shape[1]) / width])
