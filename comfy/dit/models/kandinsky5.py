"""Kandinsky 5 as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy.dit.network import without_weights
from comfy.ldm.kandinsky5.model import Kandinsky5 as Kandinsky5Network
from comfy.model_base import BaseModel, ModelType


class Kandinsky5(BaseModel):
    """Videos: text as tokens and as a vector; frames that are given stand in place of the noise, and a mask says which."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(Kandinsky5Network))

    def encode_adm(self, **kwargs: Any) -> torch.Tensor | None:
        """The pooled text."""
        return kwargs["pooled_output"]

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """Empty channels, and a mask that is 1 where frames are given."""
        noise = kwargs["noise"]
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        if mask is None:
            return torch.zeros_like(torch.cat((noise, noise[:, :1]), dim=1))
        given = 1.0 - mask[:, :1].to(kwargs["device"])
        given = comfy.utils.common_upscale(given, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        given = torch.nn.functional.pad(given, (0, 0, 0, 0, 0, max(0, noise.shape[-3] - given.shape[-3])))
        return torch.cat((torch.zeros_like(noise), comfy.utils.resize_to_batch_size(given, len(noise))), dim=1)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, its mask, and the latent of frames that are given."""
        conds = super().extra_conds(**kwargs)
        for source, target in (("cross_attn", "c_crossattn"), ("attention_mask", "attention_mask")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDRegular(kwargs[source])
        if kwargs.get("time_dim_replace") is not None:
            conds["time_dim_replace"] = comfy.conds.CONDRegular(self.process_latent_in(kwargs["time_dim_replace"]))
        return conds


class Kandinsky5Image(Kandinsky5):
    """Pictures."""

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """None: there are no further channels."""
        return None
