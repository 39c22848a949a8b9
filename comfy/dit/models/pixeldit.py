"""PixelDiT as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

from comfy.dit.network import without_weights
from comfy.ldm.pixeldit.model import PixDiT_T2I
from comfy.model_base import BaseModel, ModelType


class PixelDiTT2I(BaseModel):
    """PixelDiT: the text as tokens."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(PixDiT_T2I))

    def context_width(self) -> int | None:
        """The width of the text encoder."""
        width: int | None = self.model_config.unet_config.get("txt_embed_dim")
        return width
