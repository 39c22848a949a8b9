"""What is to be known of an autoencoder of pictures, videos or sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]
Memory = Callable[[Shape, int], float]  # of a batch's shape and the bytes of one number

WORKING_DTYPES = (torch.bfloat16, torch.float32)
REPEATED = "replicate"


@dataclass(frozen=True, slots=True)
class Autoencoder:
    """One kind of autoencoder. ``build()`` makes its network without weights, ``load(network, source, dtype)`` gives it them.

    ``latent_dim`` is 2 for pictures and 3 for videos, whose ratios and positions are given per dimension (frames, height, width); lengths
    in time are functions. ``pad_channel_value`` fills channels that a picture lacks; None: it must have them; "replicate": with the last.
    ``sample_rate_hz`` is that of the sound for autoencoders of sound, whose latents have one dimension, or ``extra_1d_channel`` rows of it;
    ``output_rate_hz`` that of decoded sound where it is another one. ``in_parts``: its network goes through videos on the host part by
    part, in tiles, whatever their size, and gives colours from 0 to 1. ``fading``: tiles of videos have all frames
    and fade into each other. ``is_whole``: its weights are all on the device while it works. ``crops``: pictures are cropped to the latent
    grid; else its network takes any sides.
    """

    build: Callable[[], Any]
    load: Callable[[Any, WeightSource, torch.dtype], None]
    image_channels: int
    latent_channels: int
    downscale_ratio: Any
    upscale_ratio: Any
    encode_bytes: Memory
    decode_bytes: Memory
    latent_dim: int = 2
    downscale_index_formula: tuple[int, ...] | None = None
    upscale_index_formula: tuple[int, ...] | None = None
    pad_channel_value: float | str | None = None
    working_dtypes: tuple[torch.dtype, ...] = WORKING_DTYPES
    sample_rate_hz: int | None = None
    in_parts: bool = False
    fading: bool = False
    is_whole: bool = False
    crops: bool = True
    extra_1d_channel: int | None = None
    output_rate_hz: int | None = None
