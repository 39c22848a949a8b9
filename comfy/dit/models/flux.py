"""Flux.1 as samplers see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy.dit.network import without_weights
from comfy.ldm.chroma.model import Chroma as ChromaNetwork
from comfy.ldm.flux.model import Flux as FluxNetwork
from comfy.model_base import BaseModel, ModelType

PIXELS = 8  # along one side of a latent pixel
LONGCAT_WORDS = 512  # where nothing says how many there are
FLUX2_WORDS = 512  # tokens of text that Flux.2 was trained with


class Flux(BaseModel):
    """Flux.1: the text as tokens and pooled; a guidance value; pictures to look at; further channels for a picture and a mask."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLUX,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = FluxNetwork,
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(unet_model))
        self.memory_usage_factor_conds = ("ref_latents",)

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """What the network takes beside the latent: nothing, a picture's latent, or also a mask's 64 values per latent pixel.

        A LoRA may have widened ``img_in``, so its weight says how many channels there are.
        """
        latent_channels = self.model_config.unet_config["out_channels"]
        channels = self.diffusion_model.img_in.weight.shape[1] // self.diffusion_model.patch_size**2
        if channels <= latent_channels:
            return None
        noise, device = kwargs["noise"], kwargs["device"]
        image = kwargs.get("concat_latent_image")
        image = self._fitted(torch.zeros_like(noise) if image is None else image, noise, device)
        image = self.process_latent_in(image)
        if channels <= 2 * latent_channels:
            return image
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        mask = torch.ones_like(noise)[:, :1] if mask is None else mask.mean(dim=1, keepdim=True)
        mask = comfy.utils.common_upscale(mask.to(device), noise.shape[-1] * PIXELS, noise.shape[-2] * PIXELS, "bilinear", "center")
        mask = torch.nn.functional.pixel_unshuffle(mask, PIXELS)
        return torch.cat((image, comfy.utils.resize_to_batch_size(mask, len(noise))), dim=1)

    @staticmethod
    def _fitted(image: torch.Tensor, noise: torch.Tensor, device: torch.device) -> torch.Tensor:
        image = comfy.utils.common_upscale(image.to(device), noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return comfy.utils.resize_to_batch_size(image, len(noise))

    def encode_adm(self, **kwargs: Any) -> torch.Tensor | None:
        """The pooled text; without it the network takes zeros."""
        return kwargs.get("pooled_output")

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, its mask, ``guidance`` (3.5 unless given; None: none), ``ref_latents``."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        mask, masked_size = kwargs.get("attention_mask"), kwargs.get("attention_mask_img_shape")
        if mask is not None and masked_size is not None:
            side = self.diffusion_model.patch_size
            tokens = tuple(math.ceil(length / side) for length in kwargs["noise"].shape[2:4])
            conds["attention_mask"] = comfy.conds.CONDRegular(comfy.utils.upscale_dit_mask(mask, masked_size, tokens))
        guidance = kwargs.get("guidance", 3.5)
        if guidance is not None:
            conds["guidance"] = comfy.conds.CONDRegular(torch.tensor([guidance], dtype=torch.float32))
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
        return {"ref_latents": [1, 16, sum(math.prod(latent.shape[2:]) for latent in references)]}


class Flux2(Flux):
    """Flux.2: short texts are preceded by zeros."""

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """As for Flux.1, with texts of 512 tokens or more."""
        conds = super().extra_conds(**kwargs)
        text = kwargs.get("cross_attn")
        if text is not None:
            missing = max(0, FLUX2_WORDS - text.shape[1])
            conds["c_crossattn"] = comfy.conds.CONDRegular(torch.nn.functional.pad(text, (0, 0, missing, 0)))
        return conds


class LongCatImage(Flux):
    """LongCat-Image: the picture's places follow the text's. It takes neither a vector nor a guidance value."""

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
        words = float(LONGCAT_WORDS if c_crossattn is None else c_crossattn.shape[1])
        options = dict(transformer_options or {})
        options["rope_options"] = {"shift_t": 1.0, "shift_y": words, "shift_x": words, **(options.get("rope_options") or {})}
        return super()._apply_model(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def encode_adm(self, **kwargs: Any) -> None:
        """None."""

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """As for Flux.1, without guidance."""
        conds = super().extra_conds(**kwargs)
        conds.pop("guidance", None)
        return conds


class Chroma(Flux):
    """Chroma: text as T5's tokens; no guidance value means 0."""

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.FLUX,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = ChromaNetwork,
    ) -> None:
        super().__init__(model_config, model_type, device, unet_model)

    def concat_cond(self, **kwargs: Any) -> None:
        """None: there are no further channels."""

    def encode_adm(self, **kwargs: Any) -> None:
        """None."""

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """As for Flux.1. Pictures to look at are left out: the network was not made for them."""
        return super().extra_conds(**{"guidance": 0, **kwargs, "reference_latents": None})
