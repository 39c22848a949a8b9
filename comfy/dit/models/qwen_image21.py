"""Qwen-Image 2.1 as samplers see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.qwen_image21.model import QwenImage21Transformer2DModel
from comfy.model_base import BaseModel, ModelType

CHANNELS = 64


class QwenImage21(BaseModel):
    """Qwen-Image 2.1: the text as tokens, pictures to look at, and where among the text these stand."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLUX,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = QwenImage21Transformer2DModel,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        self.memory_usage_factor_conds = ("ref_latents",)

    def _apply_model(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        options = dict(transformer_options or {})
        if getattr(self.current_patcher, "current_hooks", None) is not None:  # these change weights within a run
            options["qwen_image21_cache"] = {"device": "off"}
        return super()._apply_model(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def context_width(self) -> int | None:
        """The width of the text encoder."""
        width: int | None = self.model_config.unet_config.get("context_in_dim")
        return width

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, ``ref_latents`` and ``image_slots``."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        references = kwargs.get("reference_latents")
        if references is not None:
            conds["ref_latents"] = comfy.conds.CONDList([self.process_latent_in(latent) for latent in references])
            if kwargs.get("image_slots") is not None:
                conds["image_slots"] = comfy.conds.CONDConstant(list(kwargs["image_slots"]))
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures to look at, as one row of all their latent pixels."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        return {"ref_latents": [1, CHANNELS, sum(math.prod(latent.shape) for latent in references) // CHANNELS]}
