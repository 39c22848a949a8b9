"""HiDream as samplers see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy import made_by
from comfy.dit.network import without_weights
from comfy.ldm.hidream.model import HiDreamImageTransformer2DModel
from comfy.model_base import BaseModel, ModelType


class HiDream(BaseModel):
    """T5's states, those of Llama's layers, the pooled text; for HiDream-E1 also the picture to change."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLOW,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = HiDreamImageTransformer2DModel,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))

    def context_width(self) -> int | None:
        """Values per token of T5's states."""
        return self.model_config.unet_config["caption_channels"][0]

    def encode_adm(self, **kwargs: Any) -> torch.Tensor:
        """The pooled text. Raises ``ValueError`` for a conditioning of another family."""
        pooled, text = kwargs.get("pooled_output"), kwargs.get("cross_attn")
        if pooled is None or kwargs.get("conditioning_llama3") is None:
            said = "" if text is None else made_by.said(text)
            raise ValueError(f"the conditioning{said} is not that of {self.said()}; load its text encoders (type hidream, or four files)")
        return pooled

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, Llama's states, a picture's latent."""
        conds = super().extra_conds(**kwargs)
        for source, target in (("cross_attn", "c_crossattn"), ("conditioning_llama3", "encoder_hidden_states_llama3")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDRegular(kwargs[source])
        picture = kwargs.get("concat_latent_image")
        if picture is not None:
            conds["image_cond"] = comfy.conds.CONDNoiseShape(self.process_latent_in(picture))
        return conds
