"""ACE-Step 1 as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.ace.model import ACEStepTransformer2DModel
from comfy.model_base import BaseModel, ModelType


class ACEStep(BaseModel):
    """Tags as states and lyrics as tokens; of the singer nothing is known."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(ACEStepTransformer2DModel))

    def context_width(self) -> int | None:
        """That of the states of the tags."""
        return self.model_config.unet_config["text_embedding_dim"]

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, lyrics and how much they count, and zeros for the singer."""
        conds, noise = super().extra_conds(**kwargs), kwargs["noise"]
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        if kwargs.get("conditioning_lyrics") is not None:
            conds["lyric_token_idx"] = comfy.conds.CONDRegular(kwargs["conditioning_lyrics"])
        singer = self.model_config.unet_config["speaker_embedding_dim"]
        conds["speaker_embeds"] = comfy.conds.CONDRegular(torch.zeros(len(noise), singer, device=noise.device, dtype=noise.dtype))
        conds["lyrics_strength"] = comfy.conds.CONDConstant(kwargs.get("lyrics_strength", 1.0))
        return conds
