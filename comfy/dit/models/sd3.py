"""Stable Diffusion 3 as samplers see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy import made_by
from comfy.dit.network import without_weights
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.model_base import BaseModel, ModelType


class SD3(BaseModel):
    """The text as tokens and, pooled, as a vector."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLOW,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = OpenAISignatureMMDITWrapper,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))

    def encode_adm(self, **kwargs: Any) -> torch.Tensor:
        """The pooled text. Raises ``ValueError`` for a conditioning of another family, which has none of that width."""
        pooled, text = kwargs.get("pooled_output"), kwargs.get("cross_attn")
        width = self.model_config.unet_config.get("adm_in_channels")
        if pooled is None or width not in (None, pooled.shape[-1]):
            has = "none" if pooled is None else f"one of {pooled.shape[-1]}"
            raise ValueError(
                f"{self.said()} takes a pooled text of {width} values, but the conditioning has {has}"
                f"{'' if text is None else made_by.said(text)}; load its text encoders (type sd3)"
            )
        return pooled

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        return conds

    def context_width(self) -> int | None:
        """Values per token of the text."""
        embedder = self.model_config.unet_config.get("context_embedder_config")
        return None if embedder is None else embedder["params"]["in_features"]
