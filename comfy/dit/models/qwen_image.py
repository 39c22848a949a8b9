"""Qwen-Image as samplers see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.model_base import BaseModel, ModelType

CHANNELS = 16


class QwenImage(BaseModel):
    """Qwen-Image: the text as tokens with a mask, and pictures to look at. Latents have a dimension of frames."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLUX,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = QwenImageTransformer2DModel,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        self.memory_usage_factor_conds = ("ref_latents",)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, its mask, ``ref_latents`` and where they stand."""
        conds = super().extra_conds(**kwargs)
        for source, target in (("attention_mask", "attention_mask"), ("cross_attn", "c_crossattn")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDRegular(kwargs[source])
        references = kwargs.get("reference_latents")
        if references is not None:
            conds["ref_latents"] = comfy.conds.CONDList([self.process_latent_in(latent) for latent in references])
            if kwargs.get("reference_latents_method") is not None:
                conds["ref_latents_method"] = comfy.conds.CONDConstant(kwargs["reference_latents_method"])
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures to look at, as one row of all their latent pixels."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        return {"ref_latents": [1, CHANNELS, sum(math.prod(latent.shape) for latent in references) // CHANNELS]}
