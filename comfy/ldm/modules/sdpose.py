"""SDPose's head: heat maps of the points of a body, its face and hands, and where their middles are.

Maps are K x H x W. The middles follow F. Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation" (2020),
without bias (J. Huang et al., 2020): the top of a blurred map's logarithm, by its derivatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import comfy.ops

INPUT_SIZE = (768, 1024)  # width and height of the pictures
MAP_SCALE = 4  # pixels of a picture in a cell of a map
SIGMA, REACH = 2.0, 2.5  # of the blur: in cells, and how many sigmas it reaches
BORDER = 5  # cells of nothing around a map that is blurred
LEAST, MOST = 1e-3, 50.0
NOWHERE = -1.0


class HeatmapHead(torch.nn.Module):
    """Features (B x C x H x W) to *points* maps of twice the sides, and these to places and scores."""

    def __init__(self, channels: int, points: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        operations, made = operations or comfy.ops.disable_weight_init, {"device": device, "dtype": dtype}
        self.in_channels = channels
        self.heatmap_size = (INPUT_SIZE[0] // MAP_SCALE, INPUT_SIZE[1] // MAP_SCALE)
        larger = operations.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False, **made)
        self.deconv_layers = torch.nn.Sequential(larger, torch.nn.InstanceNorm2d(channels), torch.nn.SiLU())
        again = operations.Conv2d(channels, channels, 1, **made)
        self.conv_layers = torch.nn.Sequential(again, torch.nn.InstanceNorm2d(channels), torch.nn.SiLU())
        self.final_layer = operations.Conv2d(channels, points, 1, **made)

    def heatmaps(self, features: torch.Tensor) -> torch.Tensor:
        """B x K x 2·H x 2·W."""
        return self.final_layer(self.conv_layers(self.deconv_layers(features)))

    def forward(self, features: torch.Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Per picture: places (K x 2: from the left and from the top, in pixels of the model's pictures) and scores (K).

        A point whose score is not above 0 is at (-1, -1).
        """
        found = [middles(maps) for maps in self.heatmaps(features).float().cpu().numpy()]
        scale = np.array([(side - 1) / (cells - 1) for side, cells in zip(INPUT_SIZE, self.heatmap_size)], dtype=np.float32)
        places = [np.where(scores[:, None] > 0, middle * scale, NOWHERE).astype(np.float32) for middle, scores in found]
        return places, [scores for _, scores in found]


def middles(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places K x 2 from the left and from the top, in cells; scores K) of *maps*."""
    count, height, width = maps.shape
    flat = maps.reshape(count, -1)
    tops = flat.argmax(axis=1)
    scores = flat[np.arange(count), tops]
    rows, columns = np.unravel_index(tops, (height, width))
    log = np.pad(np.log(np.clip(_blurred(maps, scores), LEAST, MOST)), ((0, 0), (1, 1), (1, 1)), mode="edge")
    near = log[np.arange(count)[:, None, None], (rows[:, None] + np.arange(3))[:, :, None], (columns[:, None] + np.arange(3))[:, None]]
    middle, left, right, up, down = near[:, 1, 1], near[:, 1, 0], near[:, 1, 2], near[:, 0, 1], near[:, 2, 1]
    slopes = np.stack([right - left, down - up], axis=1) / 2
    twist = (near[:, 2, 2] - right - down + 2 * middle - left - up + near[:, 0, 0]) / 2
    curves = np.stack([right - 2 * middle + left, twist, twist, down - 2 * middle + up], axis=1).reshape(count, 2, 2)
    steps = np.linalg.solve(curves + np.finfo(np.float32).eps * np.eye(2), slopes[:, :, None])[..., 0]
    return np.stack([columns, rows], axis=1) - steps, scores


def _blurred(maps: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """*maps*, blurred, with the tops that they had before."""
    blurred = []
    for one, top in zip(maps, tops):
        smooth = gaussian_filter(np.pad(one, BORDER), sigma=SIGMA, truncate=REACH)[BORDER:-BORDER, BORDER:-BORDER]
        highest = smooth.max()
        blurred.append(smooth * (top / highest) if highest > 0 else smooth)
    return np.stack(blurred)
