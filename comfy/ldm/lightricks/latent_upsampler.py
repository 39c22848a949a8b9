"""LTX's networks that enlarge latents of videos: diffusers', whose parameters have the published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

import comfy.ops
from comfy.families.published_weights import parameters_from_buffers


class LatentUpsampler(LTX2LatentUpsamplerModel):
    """The network, with layers of this project's. Parameters are unset until weights are loaded."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], operations: Any = None) -> LatentUpsampler:  # type: ignore[override]  # ComfyUI's signature
        """One of the sizes in *config*, as files write it in their metadata."""
        with torch.device("meta"), torch.no_grad():
            built = cls(
                in_channels=config.get("in_channels", 4),
                mid_channels=config.get("mid_channels", 128),
                num_blocks_per_stage=config.get("num_blocks_per_stage", 4),
                dims=config.get("dims", 2),
                spatial_upsample=config.get("spatial_upsample", True),
                temporal_upsample=config.get("temporal_upsample", False),
                rational_spatial_scale=config.get("spatial_scale", 2.0),
                use_rational_resampler=config.get("rational_resampler", False),
            )
        parameters_from_buffers(built)
        comfy.ops.adopt_layers(built, operations or comfy.ops.disable_weight_init)
        return built.eval().requires_grad_(False)

    def get_dtype(self) -> torch.dtype:
        """The dtype that its weights are kept in."""
        weight: Any = self.initial_conv.weight
        return weight.dtype
