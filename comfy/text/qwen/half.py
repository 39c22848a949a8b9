"""Qwen3-VL 32B as MiniMax H3 has it: its first 50 layers, without the last norm, and eyes that also look at pairs of a video's frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.ops
from comfy.text.qwen.pictures import picture_patches
from comfy.text.qwen.sizes import QwenTextConfig
from comfy.text.qwen.vision3 import GREY, Qwen3VLTextModel

PAIR = "minimax_video_block"  # on a token: its picture is two frames, one after the other


class HalfQwen3VLTextModel(Qwen3VLTextModel):
    """Token embeddings to the states after the last of these layers."""

    def __init__(self, config: QwenTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config, operations, dtype)
        self.model.norm = torch.nn.Identity()

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """As its base class, of pairs of frames too (2 x height x width x 3, 0 to 1)."""
        eyes = self.config.eyes
        if not embed.get(PAIR, False) or eyes is None:
            return super().preprocess_embed(embed, device)
        frames = embed["data"][..., :3].to(device, torch.float32)
        seen = [picture_patches(frame, eyes.patch_size, 1, GREY, GREY) for frame in frames.split(1)]
        values = torch.stack([patches.unflatten(1, (frames.shape[-1], -1)) for patches, _ in seen], dim=2)
        grid = seen[0][1]
        found = self.visual(values.flatten(1), grid_thw=grid)
        return found.pooler_output, {"grid": grid, "deepstack": list(found.deepstack_features)}
