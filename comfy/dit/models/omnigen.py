"""OmniGen2 and Boogu as samplers see them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.boogu.model import BooguTransformer2DModel
from comfy.ldm.omnigen.omnigen2 import OmniGen2Transformer2DModel
from comfy.model_base import BaseModel, ModelType

CHANNELS = 16


class Omnigen2(BaseModel):
    """OmniGen2: the text as tokens, and pictures to look at."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLOW,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = OmniGen2Transformer2DModel,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        self.memory_usage_factor_conds = ("ref_latents",)

    def context_width(self) -> int | None:
        """The width of the text encoder."""
        config = self.model_config.unet_config
        width: int | None = config.get("text_feat_dim", config.get("instruction_feat_dim"))
        return width

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, its mask where some of it is padding, how many tokens it has, ``ref_latents``."""
        conds = super().extra_conds(**kwargs)
        mask = kwargs.get("attention_mask")
        if mask is not None:
            if not mask.all():
                conds["attention_mask"] = comfy.conds.CONDRegular(mask)
            conds["num_tokens"] = comfy.conds.CONDConstant(max(1, int(mask.sum())))
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


class Boogu(Omnigen2):
    """Boogu, in the same way."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=BooguTransformer2DModel)
