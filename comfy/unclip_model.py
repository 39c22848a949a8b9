"""Stable Diffusion 2.1 unCLIP as samplers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy.ldm.modules.encoders.noise_aug_modules import UNCLIP_SEED_OFFSET, CLIPEmbeddingNoiseAugmentation, unclip_adm
from comfy.model_base import BaseModel
from comfy.model_types import ModelType


class SD21UNCLIP(BaseModel):
    """Stable Diffusion 2.1 that draws after pictures: what an image encoder saw of them, with noise, is its vector conditioning.

    *noise_aug_config*: arguments of :class:`CLIPEmbeddingNoiseAugmentation`.
    """

    def __init__(
        self,
        model_config: Any,
        noise_aug_config: Mapping[str, Any],
        model_type: ModelType = ModelType.V_PREDICTION,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(model_config, model_type, device=device)
        self._noise_config = dict(noise_aug_config)

    def encode_adm(self, **kwargs: Any) -> torch.Tensor:
        """What was seen (1 x vector width); zeros without pictures. Raises ``ValueError`` for embeddings of another width."""
        seen, device = kwargs.get("unclip_conditioning"), kwargs["device"]
        if seen is None:
            return torch.zeros((1, self.adm_channels), device=device)
        for one in seen:
            width = one["clip_vision_output"].image_embeds.shape[-1]
            if width != self.adm_channels // 2:
                raise ValueError(f"{self.said()} takes pictures seen as {self.adm_channels // 2} values, not {width}; use its own encoder")
        augmentor = CLIPEmbeddingNoiseAugmentation(**self._noise_config)
        seed = (kwargs.get("seed") or 0) - UNCLIP_SEED_OFFSET
        return unclip_adm(seen, device, augmentor, kwargs.get("unclip_noise_augment_merge", 0.05), seed)
