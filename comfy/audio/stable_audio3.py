"""Files of Stable Audio 3's autoencoder: which of both kinds one is, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from comfy.audio.normed import older_name
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.ldm.audio.vae_sa3 import LATENT, MULTIPLE, PATCH, SIDES, STRIDE, SA3AudioVAE

__all__ = ["LATENT", "SIDES", "StableAudio3Autoencoder", "load_stable_audio3_vae", "read_sizes"]

Shape = tuple[int, ...]

WHAT = "the VAE"
RATE_HZ, RATIO = 44100, STRIDE * PATCH
LARGE_DEPTH, SMALL_DEPTH = 12, 6
# Numbers that are held at once for a sample. ComfyUI counts 1500 for the larger ones, whose tokens see all others there.
PER_SAMPLE = {LARGE_DEPTH: 200, SMALL_DEPTH: 72}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one: a sixth of a token's values, blocks of each half (12 with windows, 6 with chunks), kernel of the decoder's last layer."""

    channels: int
    depth: int
    kernel: int


def read_sizes(shapes: Mapping[str, Shape]) -> Sizes:
    """What *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for other kinds."""
    named = {older_name(name): shape for name, shape in shapes.items()}
    depth = count_blocks(named, "decoder.layers.3.transformers.{}.")
    if depth not in PER_SAMPLE:
        raise UnknownModelError(f"its decoder has {depth} blocks; supported: Stable Audio 3's, of {LARGE_DEPTH} or {SMALL_DEPTH}")
    return Sizes(named["decoder.layers.1.weight"][0] // MULTIPLE, depth, named["decoder.layers.3.mapping.weight_v"][-1])


class StableAudio3Autoencoder(SA3AudioVAE):
    """One whose parameters are on the meta device until :func:`load_stable_audio3_vae`; ``weight_names`` are the published ones."""

    weight_names: WeightNames

    def __init__(self, sizes: Sizes) -> None:
        large = sizes.depth == LARGE_DEPTH
        super().__init__(
            sizes.channels,
            sizes.depth,
            sinusoidal_blocks=8 if large else 0,
            sliding_window=(1, 1) if large else None,
            decoder_conv_mapping=sizes.kernel > 1,
            chunk_size=128 if large else 32,
            chunk_midpoint_shift=not large,
            device=torch.device("meta"),
        )


def load_stable_audio3_vae(model: StableAudio3Autoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_stable_audio3_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_stable_audio3_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter."""
    return plan_conversion(shapes, lambda tensors: {older_name(name): value for name, value in tensors.items()})
