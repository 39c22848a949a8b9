"""Z-Image and Lumina Image 2 as samplers see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.lumina.model import NextDiT
from comfy.model_base import BaseModel, ModelType

CHANNELS = 16
PIXELS_PER_SIGHT = 16  # along one side of what one of the image encoder's tokens shows


class Lumina2(BaseModel):
    """Text as tokens; for Z-Image omni also pictures to look at, texts about them, and what an image encoder saw of them."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLOW,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = NextDiT,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        self.memory_usage_factor_conds = ("ref_latents",)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated and its length, the pooled text, and what the omni model looks at."""
        mask, text = kwargs.get("attention_mask"), kwargs.get("cross_attn")
        conds = super().extra_conds(**kwargs)
        if mask is not None:
            if mask.numel() != mask.sum():
                conds["attention_mask"] = comfy.conds.CONDRegular(mask)
            conds["num_tokens"] = comfy.conds.CONDConstant(max(1, int(mask.sum())))
        if text is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(text)
            conds.setdefault("num_tokens", comfy.conds.CONDConstant(text.shape[1]))
        if kwargs.get("pooled_output") is not None:
            conds["clip_text_pooled"] = comfy.conds.CONDRegular(kwargs["pooled_output"])
        lists = {
            "siglip_feats": _seen(kwargs),
            "ref_latents": [self.process_latent_in(latent) for latent in kwargs.get("reference_latents") or ()],
            "ref_contexts": kwargs.get("reference_latents_text_embeds"),
        }
        conds.update({name: comfy.conds.CONDList(items) for name, items in lists.items() if items})
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures to look at, as one row of all their latent pixels."""
        references = kwargs.get("reference_latents")
        if references is None:
            return {}
        return {"ref_latents": [1, CHANNELS, sum(math.prod(latent.shape[2:]) for latent in references)]}


def _seen(kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """What image encoders saw, each B x height x width x channels."""
    outputs = kwargs.get("clip_vision_outputs")
    if outputs is None:
        outputs = [item.get("clip_vision_output") for item in kwargs.get("unclip_conditioning") or ()]
    seen = []
    for output in outputs:
        if output is not None:
            _, height, width = output.image_sizes[0]
            rows, columns = height // PIXELS_PER_SIGHT, width // PIXELS_PER_SIGHT
            tokens = output.last_hidden_state
            seen.append(tokens.reshape(len(tokens), rows, columns, tokens.shape[-1]))
    return seen
