"""SCAIL and SCAIL-2 as samplers see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

import comfy.conds
from comfy.dit.models.wan import MASKS, WAN21
from comfy.ldm.wan.model_scail import SCAIL2WanModel, SCAILWanModel
from comfy.windows.window import slice_cond

CHANNELS = 20  # of a latent and its mask
CONDS = {"driving_mask_28ch": "sam_latents", "ref_mask_28ch": "ref_mask_latents"}


def _beside_video(shape: Sequence[float]) -> list[float]:
    """The shape of a video beside the one that is made as the estimate of memory counts it: 1.5 frames."""
    return [shape[0], shape[1], 1.5, shape[-2], shape[-1]]


class WAN21_SCAIL(WAN21):  # noqa: N801 - ComfyUI's name
    """Pictures before the video and poses beside it, each with a mask of ones."""

    NETWORK: Callable[..., torch.nn.Module] = SCAILWanModel

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.memory_usage_factor_conds = ("reference_latent", "pose_latents")
        self.memory_usage_shape_process = {"pose_latents": _beside_video}

    def _known(self, latent: torch.Tensor) -> torch.Tensor:
        latent = self.process_latent_in(latent)
        return torch.cat((latent, torch.ones_like(latent[:, :MASKS])), dim=1)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With the pictures, the first of them next to the video, and the poses."""
        conds = super().extra_conds(**kwargs)
        references = kwargs.get("reference_latents")
        if references is not None:
            pictures = [self._known(latent) for latent in (*references[1:], references[0])]
            conds["reference_latent"] = comfy.conds.CONDRegular(torch.cat(pictures, dim=2))
        if kwargs.get("pose_video_latent") is not None:
            conds["pose_latents"] = comfy.conds.CONDRegular(self._known(kwargs["pose_video_latent"]))
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The pictures as one row of their latent pixels, and the poses."""
        shapes: dict[str, Any] = {}
        references, pose = kwargs.get("reference_latents"), kwargs.get("pose_video_latent")
        if references is not None:
            pixels = sum(math.prod(latent.shape) for latent in references) // self.latent_format.latent_channels
            shapes["reference_latent"] = [1, CHANNELS, pixels]
        if pose is not None:
            shapes["pose_latents"] = [pose.shape[0], CHANNELS, *pose.shape[2:]]
        return shapes


class WAN21_SCAIL2(WAN21_SCAIL):  # noqa: N801 - ComfyUI's name
    """SCAIL-2: with masks of figures; what a mask keeps of the video is given to the network as it is."""

    NETWORK = SCAIL2WanModel

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.memory_usage_factor_conds = (*self.memory_usage_factor_conds, "ref_mask_latents", "sam_latents")
        self.memory_usage_shape_process = {**self.memory_usage_shape_process, "sam_latents": _beside_video}

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With the masks, given as 1 x frames x channels x rows x columns, and whether figures are replaced."""
        conds = super().extra_conds(**kwargs)
        for given, name in CONDS.items():
            if kwargs.get(given) is not None:
                conds[name] = comfy.conds.CONDRegular(kwargs[given].movedim(1, 2).contiguous())
        if kwargs.get("ref_mask_flag") is not None:
            conds["ref_mask_flag"] = comfy.conds.CONDConstant(kwargs["ref_mask_flag"])
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """With the masks."""
        shapes = super().extra_conds_shapes(**kwargs)
        for given, name in CONDS.items():
            if kwargs.get(given) is not None:
                batch, frames, channels, *sides = kwargs[given].shape
                shapes[name] = [batch, channels, frames, *sides]
        return shapes

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """1 where the video is kept, for each of the four frames of a latent one."""
        noise = kwargs["noise"]
        if self.diffusion_model.patch_embedding.weight.shape[1] - noise.shape[1] != MASKS:
            return super().concat_cond(**kwargs)
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        return torch.zeros_like(noise[:, :MASKS]) if mask is None else self._free_frames(mask, noise, kwargs["device"])

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The latent itself, whatever the noise level."""
        return latent_image

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: torch.Tensor, device: Any, retain_index_list: Sequence[int] = ()
    ) -> Any:
        """The poses and their masks are cut; masks of pictures, which are nothing over the video, are shortened."""
        if cond_key in ("sam_latents", "pose_latents"):
            return slice_cond(cond_value, window, x_in, device, temporal_dim=2)
        if cond_key == "ref_mask_latents":
            pictures = cond_value.cond.shape[2] - x_in.shape[2]
            length = pictures + len(window.index_list) + window.has_anchor()
            return cond_value._copy_with(cond_value.cond[:, :, :length].to(device)) if pictures > 0 else None
        return super().resize_cond_for_context_window(cond_key, cond_value, window, x_in, device, retain_index_list)
