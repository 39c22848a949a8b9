"""How LTX turns queries and keys by their places: how fast each pair of values turns, and the turning itself.

Shapes: B batch, N tokens, H heads, D width of a head. A place is a position or a beginning and an end (last dimension 2).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

Frequencies = Callable[[float, int, int, Any], torch.Tensor]


class Rotations(NamedTuple):
    """Cosines and sines (B x N x H x D/2), and whether a pair is a value of each half of a head instead of two neighbours."""

    cosines: torch.Tensor
    sines: torch.Tensor
    halves: bool


@functools.lru_cache(maxsize=8)
def generate_freq_grid_np(theta: float, axes: int, inner_dim: int, device: Any = None) -> torch.Tensor:
    """How fast pairs turn (*inner_dim* / 2 / *axes* of them): powers of *theta* from 0 to 1, times π/2, worked out in float64.

    float32, on the CPU.
    """
    powers = torch.linspace(0.0, 1.0, inner_dim // (2 * axes), dtype=torch.float64)
    return (torch.tensor(theta, dtype=torch.float64) ** powers * (math.pi / 2)).float()


def generate_freq_grid_pytorch(theta: float, axes: int, inner_dim: int, device: Any = None) -> torch.Tensor:
    """The same worked out in float32 on *device*."""
    return theta ** torch.linspace(0.0, 1.0, inner_dim // (2 * axes), dtype=torch.float32, device=device) * math.pi / 2


def rotations(
    places: torch.Tensor,
    frequencies: torch.Tensor,
    inner_dim: int,
    heads: int,
    longest: Sequence[float],
    dtype: torch.dtype,
    middles: bool,
    halves: bool,
) -> Rotations:
    """The rotations of tokens at *places* (B x axes x N, or with ends), for *inner_dim* values in *heads* heads, in *dtype*.

    *longest*: for each axis the place that counts as 1. *middles*: a token stands in the middle of its place, else at its beginning.
    Values that the axes leave over are not turned.
    """
    if places.ndim == 4:
        places = places.mean(dim=-1) if middles else places[..., 0]
    shares = torch.stack([places[:, axis] / most for axis, most in enumerate(longest)], dim=-1)
    angles = (frequencies.to(shares.device) * (shares.unsqueeze(-1) * 2 - 1)).transpose(-1, -2).flatten(2)
    left = inner_dim // 2 - angles.shape[-1]
    cosines = torch.nn.functional.pad(angles.cos(), (left, 0), value=1.0).to(dtype)
    sines = torch.nn.functional.pad(angles.sin(), (left, 0)).to(dtype)
    return Rotations(cosines.unflatten(-1, (heads, -1)), sines.unflatten(-1, (heads, -1)), halves)


def apply_rotary_emb(input_tensor: torch.Tensor, freqs_cis: Rotations) -> torch.Tensor:
    """*input_tensor* (B x N x H·D) with its pairs turned; in its dtype."""
    cosines, sines, halves = freqs_cis
    by_head = input_tensor.unflatten(-1, (cosines.shape[2], -1)).to(cosines.dtype)
    first, second = by_head.chunk(2, dim=-1) if halves else (by_head[..., ::2], by_head[..., 1::2])
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    joined = torch.cat(turned, dim=-1) if halves else torch.stack(turned, dim=-1).flatten(-2)
    return joined.flatten(-2).type_as(input_tensor)
