"""A small SDPose with random weights in the published names, without prefix."""

import dataclasses

import torch

from benchmarks.make_checkpoint import UNETS
from comfy.families.published_layout import unet_layout
from comfy.ldm.modules.sdpose import HeatmapHead

LOTUS = dataclasses.replace(UNETS["sd15"], context_dim=1024, use_linear=True, adm_in_channels=4, num_heads=-1, num_head_channels=64)
SMALL = dataclasses.replace(LOTUS, model_channels=64, channel_mult=(1, 2), num_res_blocks=(1, 1), depths=(0, 1), output_depths=(0, 0, 1, 1))
POINTS = 133


def sdpose_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Its weights."""
    generator = torch.Generator().manual_seed(seed)
    head = {f"heatmap_head.{name}": tuple(value.shape) for name, value in HeatmapHead(128, POINTS).named_parameters()}
    return {
        key: torch.randn(shape, generator=generator) * (torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.1)
        for key, shape in {**unet_layout(SMALL), **head}.items()
    }
