"""Mage-Flow as samplers see it."""

from __future__ import annotations

import math
from typing import Any

import torch

from comfy.dit.models.qwen_image import QwenImage
from comfy.ldm.mage_flow.model import MageFlowTransformer2DModel
from comfy.model_base import ModelType

CHANNELS = 128


class MageFlow(QwenImage):
    """Mage-Flow: the text as tokens with a mask, and pictures to look at."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=MageFlowTransformer2DModel)

    def process_timestep(self, timestep: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The time as the network was trained with it, rounded."""
        return timestep.to(torch.bfloat16)

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures to look at, as one row of all their latent pixels."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        return {"ref_latents": [1, CHANNELS, sum(math.prod(latent.shape) for latent in references) // CHANNELS]}
