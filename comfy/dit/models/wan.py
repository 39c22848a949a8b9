"""Wan 2.1 and 2.2 as samplers see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy.dit.network import without_weights
from comfy.ldm.wan.ar_model import CausalWanModel
from comfy.ldm.wan.model import CameraWanModel, VaceWanModel, WanModel
from comfy.ldm.wan.model_animate import AnimateWanModel
from comfy.ldm.wan.model_animate2 import WanAnimate2Model
from comfy.model_base import BaseModel, ModelType
from comfy.windows.window import slice_cond

FRAMES = 4  # of a video for each latent one
MASKS = FRAMES  # channels of a mask
VACE_MASKS = 64  # one per pixel that a latent pixel stands for


class WAN21(BaseModel):
    """Text as tokens, pictures as further channels with a mask, what an image encoder saw, and latents beside the video."""

    NETWORK: Callable[..., torch.nn.Module] = WanModel

    def __init__(
        self, model_config: Any, model_type: ModelType = ModelType.FLOW, image_to_video: bool = False, device: torch.device | None = None
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(type(self).NETWORK))
        self.image_to_video = image_to_video

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """The channels beside the latent: pictures' latents and, where the network has room for it, a mask of what they leave free.

        A LoRA may have widened ``patch_embedding``, so its weight says how many channels there are.
        """
        noise, device = kwargs["noise"], kwargs["device"]
        channels = self.diffusion_model.patch_embedding.weight.shape[1] - noise.shape[1]
        if channels == 0:
            return None
        image = kwargs.get("concat_latent_image")
        image = noise.new_zeros((len(noise), channels, *noise.shape[2:])) if image is None else self._fitted(image, noise, device)
        if image.shape[1] + MASKS != channels and (not self.image_to_video or image.shape[1] == channels):
            return image
        image = image[:, : channels - MASKS]
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        mask = torch.zeros_like(noise)[:, :MASKS] if mask is None else self._free_frames(mask, noise, device)
        place = kwargs.get("concat_mask_index", 0)
        return torch.cat((image[:, :place], mask, image[:, place:]), dim=1)

    def _fitted(self, image: torch.Tensor, noise: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Latents of one or more pictures (channels behind each other) as the sampler has them, of *noise*'s sides and batch."""
        image = comfy.utils.common_upscale(image.to(device), noise.shape[-1], noise.shape[-2], "bilinear", "center")
        parts = [self.process_latent_in(part) for part in image.split(self.latent_format.latent_channels, dim=1)]
        return comfy.utils.resize_to_batch_size(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), len(noise))

    @staticmethod
    def _free_frames(mask: torch.Tensor, noise: torch.Tensor, device: torch.device) -> torch.Tensor:
        """*mask* (1 where the video is free) as the network takes it: four channels, 1 where it is not, frames that it lacks free."""
        kept = 1.0 - (mask if mask.shape[1] == MASKS else mask.mean(dim=1, keepdim=True))
        kept = comfy.utils.common_upscale(kept.to(device), noise.shape[-1], noise.shape[-2], "bilinear", "center")
        lacking = max(0, noise.shape[-3] - kept.shape[-3])
        kept = torch.nn.functional.pad(kept, (0, 0, 0, 0, 0, lacking))
        return comfy.utils.resize_to_batch_size(kept.expand(-1, MASKS, -1, -1, -1), len(noise))

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, ``clip_fea``, and latents to look at, before, behind or beside the video."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("cross_attn") is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(kwargs["cross_attn"])
        if kwargs.get("clip_vision_output") is not None:
            conds["clip_fea"] = comfy.conds.CONDRegular(kwargs["clip_vision_output"].penultimate_hidden_states)
        if kwargs.get("time_dim_concat") is not None:
            conds["time_dim_concat"] = comfy.conds.CONDRegular(self.process_latent_in(kwargs["time_dim_concat"]))
        references = kwargs.get("reference_latents")
        if references is not None:
            conds["reference_latent"] = comfy.conds.CONDRegular(self.process_latent_in(references[-1])[:, :, 0])
        if kwargs.get("context_latents") is not None:
            conds["context_latents"] = comfy.conds.CONDList([self.process_latent_in(latent) for latent in kwargs["context_latents"]])
        return conds

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: torch.Tensor, device: Any, retain_index_list: Sequence[int] = ()
    ) -> Any:
        """Of videos to look at, those as long as *x_in* are cut."""
        if cond_key != "context_latents":
            return super().resize_cond_for_context_window(cond_key, cond_value, window, x_in, device, retain_index_list)
        axis = window.dim
        frames = x_in.shape[axis]
        return cond_value._copy_with(
            [
                window.get_tensor(video, device, dim=axis, retain_index_list=retain_index_list)
                if video.ndim > axis and video.shape[axis] == frames > 1
                else video.to(device)
                for video in cond_value.cond
            ]
        )


class WAN22(WAN21):
    """Wan 2.2 5B: what the mask keeps is given to the network as it is, at time zero."""

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With the mask, from which the times of the frames come."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("denoise_mask") is not None:
            conds["denoise_mask"] = comfy.conds.CONDRegular(kwargs["denoise_mask"])
        return conds

    def process_timestep(self, timestep: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """A time per frame (B x frames), by how much of it the mask leaves free; one per video (B) without a mask."""
        mask = kwargs.get("denoise_mask")
        return timestep if mask is None else mask.mean(dim=(1, 3, 4)) * timestep[:, None]

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The latent itself, whatever the noise level."""
        return latent_image


class WAN21_CausalAR(WAN21):  # noqa: N801 - ComfyUI's name
    """Text to video, some frames at a time."""

    NETWORK = CausalWanModel


class WAN21_Vace(WAN21):  # noqa: N801 - ComfyUI's name
    """VACE: videos to go by, each as two latents and a mask, and how much each counts."""

    NETWORK = VaceWanModel

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With ``vace_context`` (B x videos x channels x frames x height x width) and ``vace_strength``; without videos, an empty one."""
        conds = super().extra_conds(**kwargs)
        noise = kwargs["noise"]
        channels = self.latent_format.latent_channels
        frames = kwargs.get("vace_frames")
        if frames is None:
            frames = [noise.new_zeros((len(noise), 2 * channels, *noise.shape[2:]))]
        masks = kwargs.get("vace_mask")
        if masks is None:
            masks = [noise.new_ones((len(noise), VACE_MASKS, *noise.shape[2:]))] * len(frames)
        videos = []
        for latents, mask in zip(frames, masks):
            parts = [self.process_latent_in(part) for part in latents.to(noise).split(channels, dim=1)]
            videos.append(torch.cat((*parts, mask.to(noise)), dim=1))
        conds["vace_context"] = comfy.conds.CONDRegular(torch.stack(videos, dim=1))
        conds["vace_strength"] = comfy.conds.CONDConstant(kwargs.get("vace_strength", [1.0] * len(videos)))
        return conds


class WAN21_Camera(WAN21):  # noqa: N801 - ComfyUI's name
    """Models that are told where the camera is."""

    NETWORK = CameraWanModel

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With the camera's rays."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("camera_conditions") is not None:
            conds["camera_conditions"] = comfy.conds.CONDRegular(kwargs["camera_conditions"])
        return conds


class WAN22_Animate(WAN21):  # noqa: N801 - ComfyUI's name
    """A figure in a picture that moves as poses in a video, with the face of another."""

    NETWORK = AnimateWanModel

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With the face's pictures (``face_video_pixels``, B x 3 x frames x 512 x 512 in -1…1) and the poses' latents."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("face_video_pixels") is not None:
            conds["face_pixel_values"] = comfy.conds.CONDRegular(kwargs["face_video_pixels"])
        if kwargs.get("pose_video_latent") is not None:
            conds["pose_latents"] = comfy.conds.CONDRegular(self.process_latent_in(kwargs["pose_video_latent"]))
        return conds

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: torch.Tensor, device: Any, retain_index_list: Sequence[int] = ()
    ) -> Any:
        """Neither has a frame for the picture; of the face there are four for each latent one."""
        rates = {"face_pixel_values": FRAMES, "pose_latents": 1}
        if cond_key in rates:
            return slice_cond(cond_value, window, x_in, device, temporal_dim=2, temporal_scale=rates[cond_key], temporal_offset=1)
        return super().resize_cond_for_context_window(cond_key, cond_value, window, x_in, device, retain_index_list)


class WAN_Animate2(WAN21):  # noqa: N801 - ComfyUI's name
    """A picture that moves as a video does."""

    NETWORK = WanAnimate2Model

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None, **_: Any) -> None:
        super().__init__(model_config, model_type, image_to_video=True, device=device)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With the video, what was seen and said of it, and how much it and the picture count."""
        conds = super().extra_conds(**kwargs)
        if kwargs.get("pose_video_latent") is not None:
            conds["pose_latents"] = comfy.conds.CONDRegular(self.process_latent_in(kwargs["pose_video_latent"]))
        if kwargs.get("clip_vision_output_pose") is not None:
            conds["clip_fea_pose"] = comfy.conds.CONDRegular(kwargs["clip_vision_output_pose"].penultimate_hidden_states)
        if kwargs.get("cross_attn_pose") is not None:
            conds["context_pose"] = comfy.conds.CONDRegular(kwargs["cross_attn_pose"])
        for name in ("pose_strength", "reference_strength"):
            if kwargs.get(name, 1.0) != 1.0:
                conds[name] = comfy.conds.CONDConstant(kwargs[name])
        return conds

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: torch.Tensor, device: Any, retain_index_list: Sequence[int] = ()
    ) -> Any:
        """The pose's video has no frame for the picture."""
        if cond_key == "pose_latents":
            return slice_cond(cond_value, window, x_in, device, temporal_dim=2, temporal_offset=1)
        return super().resize_cond_for_context_window(cond_key, cond_value, window, x_in, device, retain_index_list)
