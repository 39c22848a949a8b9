"""MiniMax H3 as samplers see it: one packed latent of a video and its sound."""

from __future__ import annotations

import math
from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy.dit.network import without_weights
from comfy.ldm.minimax.layout import PackedLayout
from comfy.ldm.minimax.model import VISUAL_COND_TIMESTEP, MiniMaxH3Model
from comfy.ldm.minimax.rows import WHOLLY_FREE, time_shift_sigma
from comfy.model_base import BaseModel, ModelType

MASK_LEVELS = 256.0
LEAST = 1e-6
NOISE_AUGMENTATIONS = ("visual_cond_noise_aug", "audio_cond_noise_aug")


class MiniMaxH3(BaseModel):
    """Text as tokens of which each has a modality, and pictures, videos and sounds that are shown, in one ``minimax_payload``."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW_AV, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(MiniMaxH3Model))

    def audio_scale(self) -> float:
        """How many times as large the sound is in the sampler's latent."""
        return self.model_sampling.audio_scale if self._is_packed() else 1.0

    def _is_packed(self) -> bool:
        return self.latent_shapes is not None and len(self.latent_shapes) > 1

    def process_latent_in(self, latent: Any) -> Any:
        """The sampler's latent."""
        return self._with_audio_scaled(latent, self.audio_scale())

    def process_latent_out(self, latent: Any) -> Any:
        """The autoencoders' latent."""
        return self._with_audio_scaled(latent, 1.0 / self.audio_scale())

    def _with_audio_scaled(self, latent: Any, scale: float) -> Any:
        """*latent*, packed or of several kinds, with its sound multiplied by *scale*."""
        if scale == 1.0:
            return latent
        if latent.is_nested:
            video, audio, *others = latent.unbind()
            return type(latent)([video, audio * scale, *others])
        shapes: Any = self.latent_shapes
        video, rest = latent.tensor_split([math.prod(shapes[0][1:])], dim=-1)
        return torch.cat((video, rest * scale), dim=-1)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: the text refined once, and the payload, which no dtype is changed in."""
        conds = super().extra_conds(**kwargs)
        text, shapes = kwargs.get("cross_attn"), kwargs.get("latent_shapes")
        if text is not None:
            text = self.diffusion_model.preprocess_text_embeds(text.to(device=kwargs["device"], dtype=self.get_dtype_inference()))
            conds["c_crossattn"] = comfy.conds.CONDRegular(text)
        if shapes is not None:
            conds["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        payload = self._payload(kwargs)
        if kwargs.get("denoise_mask") is not None:
            conds |= self._masks(kwargs["denoise_mask"], shapes)
        if text is not None and shapes is not None and len(shapes) > 1:
            _, _, frames, height, width = shapes[0]
            sides = (frames, height + height % 2, width + width % 2)
            payload["layout"] = PackedLayout(
                text.shape[1], *sides, shapes[1][-1], keyframes=payload.get("keyframes"), refs=payload.get("refs")
            )
        conds["minimax_payload"] = comfy.conds.CONDConstant(payload)
        return conds

    def _payload(self, given: dict[str, Any]) -> dict[str, Any]:
        keyframes, references = given.get("minimax_keyframes"), given.get("minimax_refs")
        payload: dict[str, Any] = {"seed": given.get("seed") or 0, "audio_scale": self.audio_scale()}
        named = {"text_token_tags": given.get("minimax_token_tags"), "keyframes": keyframes, "refs": references}
        named |= {name: given.get(f"minimax_{name}") for name in NOISE_AUGMENTATIONS}
        payload |= {name: value for name, value in named.items() if value is not None}
        shown = [*(keyframes or ()), *(references or ())]
        for name, latent in (("cond_video_latents", "latent"), ("cond_audio_latents", "audio_latent")):
            payload[name] = [one[latent] for one in shown if one.get(latent) is not None]
        return payload

    def _masks(self, mask: torch.Tensor, shapes: Any) -> dict[str, comfy.conds.CONDRegular]:
        """The masks of the video and the sound in packed *mask*, where they keep something."""
        if shapes is None or len(shapes) < 2:
            return {}
        video, audio = self._per_row(mask, shapes)
        conds = {}
        if video.amin() < WHOLLY_FREE:
            conds["denoise_mask"] = comfy.conds.CONDRegular(video[:1, :1].clone())
        if audio.amin() < WHOLLY_FREE:
            conds["audio_denoise_mask"] = comfy.conds.CONDRegular(audio[:1].amax(dim=1, keepdim=True))
        return conds

    def _per_row(self, mask: torch.Tensor, shapes: Any) -> list[torch.Tensor]:
        """The masks in packed *mask* in the network's steps: a patch is as free as its freest place, a time as its freest channel."""
        video, audio = comfy.utils.unpack_latents(mask, shapes)
        height, width = video.shape[-2:]
        lines, columns = self.diffusion_model.patch_size[1:]
        padded = torch.nn.functional.pad(video.flatten(0, 1), (0, -width % columns, 0, -height % lines), mode="replicate")
        freest = padded.unflatten(-1, (-1, columns)).unflatten(-3, (-1, lines)).amax(dim=(-3, -1))
        freest = freest.repeat_interleave(lines, dim=-2).repeat_interleave(columns, dim=-1)[..., :height, :width]
        sounding = audio.amax(dim=1, keepdim=True).expand_as(audio)
        return [(part * MASK_LEVELS).ceil() / MASK_LEVELS for part in (freest.reshape(video.shape), sounding)]

    def scale_latent_inpaint(
        self,
        sigma: torch.Tensor,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        x: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """What a mask keeps, nearly without noise, as the network knows it; in a patch that is partly free the mask counts for it all."""
        if not self._is_packed():
            return super().scale_latent_inpaint(sigma=sigma, noise=noise, latent_image=latent_image, **kwargs)
        shapes: Any = self.latent_shapes
        video, audio = comfy.utils.unpack_latents(latent_image, shapes)
        video = VISUAL_COND_TIMESTEP * video + (1.0 - VISUAL_COND_TIMESTEP) * comfy.utils.unpack_latents(noise, shapes)[0]
        scale = self.audio_scale()
        if scale != 1.0:
            level = sigma.clamp(min=LEAST)
            factor = level / time_shift_sigma(level, self.model_sampling.shift, self.model_sampling.audio_shift) / scale
            audio = audio * factor.reshape(-1, *(1,) * (audio.ndim - 1)).to(audio.dtype)
        kept = comfy.utils.pack_latents([video, audio])[0]
        if x is None or denoise_mask is None:
            return kept
        rows = comfy.utils.pack_latents(self._per_row(denoise_mask, shapes))[0]
        share = ((rows - denoise_mask) / (1.0 - denoise_mask).clamp(min=LEAST)).clamp(0.0, 1.0)
        share = torch.where(denoise_mask < 1.0, share, torch.zeros_like(share))
        return kept + share.to(kept.dtype) * (x - kept)
