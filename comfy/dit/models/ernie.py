"""ERNIE-Image as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.ernie.model import ErnieImageModel
from comfy.model_base import BaseModel, ModelType


class ErnieImage(BaseModel):
    """ERNIE-Image: the text as tokens."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(ErnieImageModel))

    def context_width(self) -> int | None:
        """The width of the text encoder."""
        width: int | None = self.model_config.unet_config.get("text_in_dim")
        return width

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, as each token has a place."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        return conds
