"""Krea 2 as samplers see it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.krea2.model import SingleStreamDiT
from comfy.model_base import BaseModel, ModelType

log = logging.getLogger(__name__)

CHANNELS = 16


class Krea2(BaseModel):
    """Krea 2: the text as tokens, and pictures to look at. Latents have a dimension of frames."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLUX,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = SingleStreamDiT,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        self.memory_usage_factor_conds = ("ref_latents",)

    def context_width(self) -> int | None:
        """All states of a token behind each other."""
        config = self.model_config.unet_config
        return config["txtlayers"] * config["txtdim"] if "txtlayers" in config and "txtdim" in config else None

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, ``ref_latents`` and where they stand."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        references, method = kwargs.get("reference_latents"), kwargs.get("reference_latents_method")
        if references is not None:
            conds["ref_latents"] = comfy.conds.CONDList([self.process_latent_in(latent) for latent in references])
            if method is not None:
                conds["ref_latents_method"] = comfy.conds.CONDConstant(method)
            elif getattr(self.diffusion_model, "default_ref_method", None) is None:
                log.warning("%s looks at reference pictures only where a node says how they stand; they are not used", self.said())
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures to look at, as one row of all their latent pixels."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        return {"ref_latents": [1, CHANNELS, sum(math.prod(latent.shape) for latent in references) // CHANNELS]}
