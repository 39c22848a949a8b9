"""HunyuanVideo 1 and 1.5 as samplers see them."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy.dit.network import without_weights
from comfy.ldm.hunyuan_video.model import HunyuanVideo as HunyuanVideoNetwork
from comfy.model_base import BaseModel, ModelType

GUIDANCE = 6.0
KEPT_SHARE = 0.75  # the most of an enlarged video's latent that is left beside the noise added to it
SEED_DISTANCE = 10  # of the noise added to a video from the sampler's


class HunyuanVideo(BaseModel):
    """HunyuanVideo 1: text as tokens and as a vector; of a picture, what the nodes say of it."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(HunyuanVideoNetwork))

    def encode_adm(self, **kwargs: Any) -> torch.Tensor | None:
        """The pooled text."""
        return kwargs["pooled_output"]

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, its mask, guidance (6), the time of a first frame that is given, and the latent
        of a picture beside the video.
        """
        conds = super().extra_conds(**kwargs)
        for source, target in (("cross_attn", "c_crossattn"), ("attention_mask", "attention_mask")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDRegular(kwargs[source])
        for name, value in (("guidance", kwargs.get("guidance", GUIDANCE)), ("guiding_frame_index", kwargs.get("guiding_frame_index"))):
            if value is not None:
                conds[name] = comfy.conds.CONDRegular(torch.tensor([value], dtype=torch.float32))
        if kwargs.get("ref_latent") is not None:
            conds["ref_latent"] = comfy.conds.CONDRegular(self.process_latent_in(kwargs["ref_latent"]))
        return conds

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The latent itself, whatever the noise level."""
        return latent_image


class HunyuanVideoI2V(HunyuanVideo):
    """With a picture's latent and its mask beside the noise."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device)
        self.concat_keys = ("concat_image", "mask_inverted")


class HunyuanVideoSkyreelsI2V(HunyuanVideo):
    """With a picture's latent beside the noise."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device)
        self.concat_keys = ("concat_image",)


class HunyuanVideo15(HunyuanVideo):
    """Text as tokens, texts to be written, what an image encoder saw, and a picture as further channels with a mask."""

    def encode_adm(self, **kwargs: Any) -> torch.Tensor | None:
        """None: there is no vector."""
        return None

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """A picture's latent and a mask that is 1 where it stands; zeros without one. None for networks without room for them."""
        noise, device = kwargs["noise"], kwargs["device"]
        channels = self.diffusion_model.img_in.proj.weight.shape[1] - noise.shape[1] - 1
        if channels <= 0:
            return None
        image = kwargs.get("concat_latent_image")
        if image is None:
            image = noise.new_zeros((len(noise), channels, *noise.shape[2:]))
        else:
            image = comfy.utils.common_upscale(image.to(device), noise.shape[-1], noise.shape[-2], "bilinear", "center")
            image = comfy.utils.resize_to_batch_size(self.process_latent_in(image), len(noise))
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        if mask is None:
            return torch.cat((image, torch.zeros_like(noise)[:, :1]), dim=1)
        mask = mask.to(device).mean(dim=1, keepdim=True)
        kept = comfy.utils.common_upscale(1.0 - mask, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        kept = torch.nn.functional.pad(kept, (0, 0, 0, 0, 0, max(0, noise.shape[-3] - kept.shape[-3])))
        return torch.cat((image, comfy.utils.resize_to_batch_size(kept, len(noise))), dim=1)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: ``txt_byt5`` and ``clip_fea``; the mask only where some of the text is padding."""
        mask = kwargs.get("attention_mask")
        conds = super().extra_conds(**{**kwargs, "attention_mask": None if mask is None or bool((mask == 1).all()) else mask})
        if kwargs.get("conditioning_byt5small") is not None:
            conds["txt_byt5"] = comfy.conds.CONDRegular(kwargs["conditioning_byt5small"])
        if kwargs.get("clip_vision_output") is not None:
            conds["clip_fea"] = comfy.conds.CONDRegular(kwargs["clip_vision_output"].last_hidden_state)
        return conds


class HunyuanVideo15_SR_Distilled(HunyuanVideo15):  # noqa: N801 - ComfyUI's name
    """The network that adds detail: beside the noise a picture, its mask, a video made larger, and its mask."""

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """These channels as the node joined them, with ``noise_augmentation`` of noise added to the video; zeros without a node."""
        noise = kwargs["noise"]
        given = kwargs.get("concat_latent_image")
        if given is None:
            return noise.new_zeros((len(noise), noise.shape[1] * 2 + 2, *noise.shape[2:]))
        given = comfy.utils.common_upscale(given.to(kwargs["device"]), noise.shape[-1], noise.shape[-2], "bilinear", "center")
        given = comfy.utils.resize_to_batch_size(given, len(noise))
        picture, video, mask = given.split([noise.shape[1] + 1, noise.shape[1], 1], dim=1)
        share = kwargs.get("noise_augmentation", 0.0)
        kept = video * min(1.0 - share, KEPT_SHARE)
        if share > 0:
            generator = torch.Generator().manual_seed((kwargs.get("seed") or 0) - SEED_DISTANCE)
            kept = kept + share * torch.randn(video.shape, generator=generator, dtype=video.dtype).to(video.device)
        return torch.cat((picture, kept, mask), dim=1)
