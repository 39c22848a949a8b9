"""Giving restored pictures the colours of what they were made from.

Frames are 3 x H x W, float32, -1 to 1. StableSR (J. Wang et al., "Exploiting Diffusion Prior for Real-World Image Super-Resolution", 2023)
has the first and the last of these ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_extras.colour_matching import lab_to_rgb, rgb_to_lab

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

LEVELS = 5  # of frequencies
BLUR = (0.25, 0.5, 0.25)
OWN_LIGHT = 0.8  # of the brightness that stays
SMALLEST = 1e-5  # added to variances


def by_lab(restored: Tensor, reference: Tensor) -> Tensor:
    """*restored* with the coarse colours of *reference*, and then, in CIE L*a*b*, with as much of each shade as it has."""
    coarse = by_wavelets(restored, reference)
    own, wanted = (rgb_to_lab(((frame + 1.0) / 2.0).clamp(0.0, 1.0).flatten(1)) for frame in (coarse, reference))
    light, *shades = (_with_values_of(*pair) for pair in zip(own, wanted))
    lab = torch.stack([OWN_LIGHT * own[0] + (1.0 - OWN_LIGHT) * light, *shades])
    return lab_to_rgb(lab).view_as(coarse) * 2.0 - 1.0


def by_wavelets(restored: Tensor, reference: Tensor) -> Tensor:
    """The details of *restored* over the coarse colours of *reference*."""
    fine = restored - _coarse(restored)
    return (fine + _coarse(reference)).clamp(-1.0, 1.0)


def by_statistics(restored: Tensor, reference: Tensor) -> Tensor:
    """*restored* with the mean and deviation of each channel of *reference*."""
    (own_mean, own_deviation), (mean, deviation) = (_statistics(frame) for frame in (restored, reference))
    return ((restored - own_mean) / own_deviation * deviation + mean).clamp(-1.0, 1.0)


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lab": by_lab, "wavelet": by_wavelets, "adain": by_statistics}


def _coarse(frame: Tensor) -> Tensor:
    """*frame* blurred level by level, each twice as wide, as far as its smaller side allows."""
    weights = frame.new_tensor(BLUR)
    kernel = (weights[:, None] * weights).expand(len(frame), 1, -1, -1)
    widest = max(1, min(frame.shape[1:]) // 8)
    for level in range(LEVELS):
        width = min(2**level, widest)
        padded = torch.nn.functional.pad(frame[None], (width,) * 4, mode="replicate")
        frame = torch.nn.functional.conv2d(padded, kernel, groups=len(frame), dilation=width)[0]
    return frame


def _with_values_of(own: Tensor, wanted: Tensor) -> Tensor:
    """The values of *wanted* in the order in which *own* has its, which are as many."""
    made = torch.empty_like(own)
    made[own.argsort()] = wanted.sort().values
    return made


def _statistics(frame: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(frame, dim=(1, 2), correction=0, keepdim=True)
    return mean, (variance + SMALLEST).sqrt()
