"""Flux.3 as samplers see it."""

from __future__ import annotations

import math
from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.flux3.model import Flux3 as Network
from comfy.model_base import BaseModel, ModelType

CHANNELS = 128


class Flux3(BaseModel):
    """Flux.3: the text as tokens, padding among them, and pictures to look at."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(Network))
        self.memory_usage_factor_conds = ("ref_latents",)

    def context_width(self) -> int | None:
        """The states of eight layers behind each other."""
        width: int | None = self.model_config.unet_config.get("context_in_dim")
        return width

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, as each token has a place, and ``ref_latents``."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        references = kwargs.get("reference_latents")
        if references is not None:
            conds["ref_latents"] = comfy.conds.CONDList([self.process_latent_in(latent) for latent in references])
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures to look at, as one row of all their latent pixels."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        return {"ref_latents": [1, CHANNELS, sum(math.prod(latent.shape) for latent in references) // CHANNELS]}
