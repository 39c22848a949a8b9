"""SAM 3 and RT-DETR as loaders see them: networks that sample nothing; nodes call ``diffusion_model`` themselves."""

from __future__ import annotations

from typing import Any

import torch

from comfy.dit.network import without_weights
from comfy.ldm.rt_detr.rtdetr_v4 import RTv4
from comfy.ldm.sam3.detector import SAM3Model
from comfy.model_base import BaseModel, ModelType


class SAM3(BaseModel):
    """Finds, outlines and follows what texts name."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(SAM3Model))


class RT_DETR_v4(BaseModel):  # noqa: N801 - ComfyUI's name
    """Finds things of 80 kinds."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(RTv4))
