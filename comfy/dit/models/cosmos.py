"""Cosmos 1, Cosmos-Predict2 and Anima as samplers see them. Latents have a dimension of frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
from comfy import made_by
from comfy.dit.network import without_weights
from comfy.ldm.anima.model import Anima as AnimaNetwork
from comfy.ldm.cosmos.model import GeneralDIT
from comfy.ldm.cosmos.predict2 import MiniTrainDIT
from comfy.model_base import BaseModel, ModelType

VIDEO_DIMENSIONS = 5


class _GivenFrames(BaseModel):
    """A model whose network may take a channel more, which says what is given."""

    def __init__(
        self, model_config: Any, model_type: ModelType, device: torch.device | None, unet_model: Callable[..., torch.nn.Module]
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        config = model_config.unet_config
        self.image_to_video = config["in_channels"] > config["out_channels"]
        if self.image_to_video:
            self.concat_keys = ("mask_inverted",)


class CosmosVideo(_GivenFrames):
    """Cosmos 1. Where the network takes a channel more, it says which frames are given."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.EDM,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = GeneralDIT,
    ) -> None:
        super().__init__(model_config, model_type, device, unet_model)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Besides the usual: text that is never repeated, its mask, the frames per second."""
        conds: dict[str, Any] = super().extra_conds(**kwargs)
        for source, target in (("attention_mask", "attention_mask"), ("cross_attn", "c_crossattn")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDRegular(kwargs[source])
        conds["fps"] = comfy.conds.CONDConstant(kwargs.get("frame_rate"))
        return conds

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The given frames without noise, in the scale that makes the network see them as they are at *sigma*."""
        deviation = self.model_sampling.sigma_data
        scale = (sigma**2 + deviation**2) ** 0.5 / deviation
        return latent_image * scale.reshape(-1, *(1,) * (noise.ndim - 1))


class CosmosPredict2(_GivenFrames):
    """Cosmos-Predict2. Where the network takes a channel more, it says which frames are given; those are at time 0."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLOW_COSMOS,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = MiniTrainDIT,
    ) -> None:
        super().__init__(model_config, model_type, device, unet_model)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Besides the usual: text that is never repeated, the mask of what is sampled, the frames per second."""
        conds: dict[str, Any] = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        if mask is not None:
            conds["denoise_mask"] = comfy.conds.CONDRegular(mask)
        conds["fps"] = comfy.conds.CONDConstant(kwargs.get("frame_rate"))
        return conds

    def process_timestep(self, timestep: torch.Tensor, denoise_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """Times per frame (B x frames) where *denoise_mask* (B x 1 x frames x height x width) says what is sampled."""
        if denoise_mask is None or denoise_mask.ndim < VIDEO_DIMENSIONS:
            return timestep
        return timestep[:, None] * denoise_mask.mean(dim=(1, 3, 4))

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The kept part without noise, in the scale of the latent at *sigma*."""
        return latent_image * (1.0 + sigma.reshape(-1, *(1,) * (noise.ndim - 1)))


class Anima(BaseModel):
    """Anima: Qwen's states and T5's tokens, which the network's adapter makes one text of."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLOW,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = AnimaNetwork,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))

    def context_width(self) -> int | None:
        """Values per token of Qwen's states."""
        sizes = self.model_config.unet_config.get("llm_adapter_config") or {"source_dim": 1024}
        return sizes["source_dim"]

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: the text as the adapter makes it (while something is trained: what the adapter needs).

        Raises ``ValueError`` for a text without T5's tokens.
        """
        conds = super().extra_conds(**kwargs)
        text, ids, weights = (kwargs.get(name) for name in ("cross_attn", "t5xxl_ids", "t5xxl_weights"))
        if text is None:
            return conds
        if ids is None:
            raise ValueError(f"the conditioning{made_by.said(text)} has no tokens of T5; {self.said()} needs Qwen3 0.6B as text encoder")
        ids = ids.unsqueeze(0)
        weights = None if weights is None else weights[None, :, None].to(text)
        if torch.is_inference_mode_enabled():
            device, dtype = kwargs["device"], self.get_dtype_inference()
            weights = None if weights is None else weights.to(device, dtype)
            text = self.diffusion_model.preprocess_text_embeds(text.to(device, dtype), ids.to(device), t5xxl_weights=weights)
        else:
            conds["t5xxl_ids"] = comfy.conds.CONDRegular(ids)
            if weights is not None:
                conds["t5xxl_weights"] = comfy.conds.CONDRegular(weights)
        conds["c_crossattn"] = comfy.conds.CONDRegular(text)
        return conds
