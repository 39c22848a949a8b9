"""PixelDiT and PiD as samplers see them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.pixeldit.model import PixDiT_T2I
from comfy.ldm.pixeldit.pid import PidNet
from comfy.model_base import BaseModel, ModelType


class PixelDiTT2I(BaseModel):
    """PixelDiT: the text as tokens."""

    NETWORK: ClassVar[type[torch.nn.Module]] = PixDiT_T2I

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(self.NETWORK))

    def context_width(self) -> int | None:
        """The width of the text encoder."""
        width: int | None = self.model_config.unet_config.get("txt_embed_dim")
        return width


class PiD(PixelDiTT2I):
    """PiD: PixelDiT with a latent, and how noisy that is."""

    NETWORK = PidNet

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: ``lq_latent`` and ``degrade_sigma``."""
        conds = super().extra_conds(**kwargs)
        given = {name: kwargs.get(name) for name in ("lq_latent", "degrade_sigma")}
        return conds | {name: comfy.conds.CONDRegular(value) for name, value in given.items() if value is not None}
