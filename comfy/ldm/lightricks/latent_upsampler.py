"""LTX's networks that enlarge latents of videos: diffusers', whose parameters have the published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

import comfy.ops
from comfy.families.published_weights import parameters_from_buffers

# The names that files write, diffusers' names, and what holds where a file does not say.
SETTINGS: Mapping[str, tuple[str, Any]] = {
    **{name: (name, usual) for name, usual in (("in_channels", 4), ("mid_channels", 128), ("num_blocks_per_stage", 4), ("dims", 2))},
    **{name: (name, usual) for name, usual in (("spatial_upsample", True), ("temporal_upsample", False))},
    "spatial_scale": ("rational_spatial_scale", 2.0),
    "rational_resampler": ("use_rational_resampler", False),
}


class LatentUpsampler(LTX2LatentUpsamplerModel):
    """The network, with layers of this project's. Parameters are unset until weights are loaded."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], operations: Any = None) -> LatentUpsampler:  # type: ignore[override]  # ComfyUI's signature
        """One of the sizes in *config*, as files write it in their metadata."""
        with torch.device("meta"), torch.no_grad():
            built = cls(**{theirs: config.get(name, usual) for name, (theirs, usual) in SETTINGS.items()})
        parameters_from_buffers(built)
        comfy.ops.adopt_layers(built, operations or comfy.ops.disable_weight_init)
        return built.eval().requires_grad_(False)

    def get_dtype(self) -> torch.dtype:
        """The dtype that its weights are kept in."""
        weight: Any = self.initial_conv.weight
        return weight.dtype
