"""Ideogram 4 as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.ideogram4.model import Ideogram4Transformer2DModel
from comfy.model_base import BaseModel, ModelType


class Ideogram4(BaseModel):
    """Ideogram 4: the text as tokens, with a mask where some of them are padding."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(Ideogram4Transformer2DModel))

    def context_width(self) -> int | None:
        """The states of all layers behind each other."""
        width: int | None = self.model_config.unet_config.get("llm_features_dim")
        return width

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, and ``attention_mask`` where it hides anything."""
        conds = super().extra_conds(**kwargs)
        mask: torch.Tensor | None = kwargs.get("attention_mask")
        if mask is not None and not bool(mask.all()):
            conds["attention_mask"] = comfy.conds.CONDRegular(mask)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        return conds
