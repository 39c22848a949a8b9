"""SeedVR2 as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.seedvr.model import NaDiT
from comfy.model_base import BaseModel, ModelType


class SeedVR2(BaseModel):
    """Restores what ``condition`` of the conditioning holds: a latent, and where there is one."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(NaDiT))

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Also ``condition``."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("condition") is not None:
            conds["condition"] = comfy.conds.CONDRegular(kwargs["condition"])
        return conds
