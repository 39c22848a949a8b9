"""LTX-Video 0.9 and LTX 2 as samplers see them."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy import made_by
from comfy.dit.network import without_weights
from comfy.ldm.lightricks.av_model import LTXAVModel
from comfy.ldm.lightricks.base_model import FRAME_RATE
from comfy.ldm.lightricks.model import LTXVModel
from comfy.model_base import BaseModel, ModelType

CONSTANTS = ("guide_attention_entries", "generated_keyframes", "ref_audio")


class LTXV(BaseModel):
    """Text as tokens with a mask, the frame rate, a noise level for each token, and guides at the end of the latent."""

    NETWORK: type[LTXVModel] = LTXVModel

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLUX, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(type(self).NETWORK))

    def context_width(self) -> int | None:
        """Values per token of the text that the network takes."""
        return self.diffusion_model.caption_channels

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, its mask, ``frame_rate`` (25), ``denoise_mask``, ``keyframe_idxs`` and words of
        guides."""
        conds = super().extra_conds(**kwargs)
        for source, target in (("attention_mask", "attention_mask"), ("cross_attn", "c_crossattn"), ("keyframe_idxs", "keyframe_idxs")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDRegular(kwargs[source])
        conds["frame_rate"] = comfy.conds.CONDConstant(kwargs.get("frame_rate", FRAME_RATE))
        conds |= {name: comfy.conds.CONDConstant(kwargs[name]) for name in CONSTANTS if kwargs.get(name) is not None}
        conds |= {name: comfy.conds.CONDRegular(mask) for name, mask in self.masks(**kwargs).items()}
        return conds

    def masks(self, **kwargs: Any) -> dict[str, torch.Tensor]:
        """The masks of what is to be made, by the names that the network takes."""
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        return {} if mask is None else {"denoise_mask": mask}

    def process_timestep(self, timestep: torch.Tensor, denoise_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """The noise level of each token (B x N x 1) where there is a mask: what is kept has none."""
        if denoise_mask is None:
            return timestep
        levels = (denoise_mask * timestep.view(-1, *(1,) * (denoise_mask.ndim - 1)))[:, :1]
        return self.diffusion_model.patchifier.patchify(levels)[0]

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The latent itself, whatever the noise level."""
        return latent_image


class LTXAV(LTXV):
    """The same for a video with sound, whose latents are sampled as one flat tensor; ``ref_audio`` is sound that was heard before."""

    NETWORK = LTXAVModel

    def context_width(self) -> int | None:
        """Any: what the text encoder gives goes through connectors of the width that the file says."""
        return None

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides those: the shapes of the latents. The text goes through the network's connectors here, once for a sampling."""
        text = kwargs.get("cross_attn")
        if text is not None:
            encoded = text.to(device=kwargs["device"], dtype=self.get_dtype_inference())
            kwargs["cross_attn"] = self.diffusion_model.preprocess_text_embeds(encoded, kwargs.get("unprocessed_ltxav_embeds", False))
        conds = super().extra_conds(**kwargs)
        if kwargs.get("latent_shapes") is not None:
            conds["latent_shapes"] = comfy.conds.CONDConstant(kwargs["latent_shapes"])
        return conds

    def masks(self, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Those of the video and of the sound."""
        masks = super().masks(**kwargs)
        if not masks or kwargs.get("latent_shapes") is None:
            return masks
        parts = comfy.utils.unpack_latents(masks["denoise_mask"], kwargs["latent_shapes"])
        return dict(zip(("denoise_mask", "audio_denoise_mask"), parts))

    def process_timestep(
        self,
        timestep: torch.Tensor,
        denoise_mask: torch.Tensor | None = None,
        audio_denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Of the video and of the sound."""
        sound = timestep
        if audio_denoise_mask is not None:
            levels = (audio_denoise_mask * timestep.view(-1, *(1,) * (audio_denoise_mask.ndim - 1)))[:, :1, :, :1]
            sound = self.diffusion_model.a_patchifier.patchify(levels)[0]
        return super().process_timestep(timestep, denoise_mask), sound

    def process_latent_in(self, latent: torch.Tensor) -> torch.Tensor:
        """The latent as it is, flat or a video's alone. Raises ``ValueError`` for a video's of another family."""
        if latent.ndim > 3:
            made_by.check_latent(latent, self.latent_format.latent_channels, self.said())
        return self.latent_format.process_in(latent)
