"""SAM 3 as loaders see it."""

from __future__ import annotations

from typing import Any

import torch

from comfy.dit.network import without_weights
from comfy.ldm.sam3.detector import SAM3Model
from comfy.model_base import BaseModel, ModelType


class SAM3(BaseModel):
    """A network that samples nothing: nodes call ``diffusion_model`` themselves."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(SAM3Model))
