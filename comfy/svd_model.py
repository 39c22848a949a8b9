"""Stable Video Diffusion as samplers see it: a batch of latents is the frames of a video that begins with a picture."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy.families.timestep_embedding import Timestep
from comfy.model_base import BaseModel, ModelType

EMBEDDED = 256  # values of each number of the vector
FPS, MOTION = 6, 127  # where the conditioning says nothing


class SVD_img2vid(BaseModel):  # noqa: N801 - ComfyUI's name
    """A picture as an image encoder saw it (text's place), its latent beside every frame, and three numbers as a vector."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.V_PREDICTION_EDM, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device)
        self.embedder = Timestep(EMBEDDED)

    def encode_adm(self, **kwargs: Any) -> torch.Tensor:
        """Frames per second, how much moves, and the noise that was added to the picture: 1 x 768."""
        numbers = (kwargs.get("fps", FPS) - 1, kwargs.get("motion_bucket_id", MOTION), kwargs.get("augmentation_level", 0))
        return self.embedder(torch.tensor(numbers, dtype=torch.float32)).flatten()[None]

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """The picture's latent for every frame, as the autoencoder gave it; zeros without one."""
        noise, latent = kwargs["noise"], kwargs.get("concat_latent_image")
        if latent is None:
            return torch.zeros_like(noise)
        if latent.shape[1:] != noise.shape[1:]:
            latent = comfy.utils.common_upscale(latent, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return comfy.utils.resize_to_batch_size(latent, len(noise))

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Besides the usual: how many frames there are, and what frames see of each other's conditioning where that is told."""
        conds: dict[str, Any] = super().extra_conds(**kwargs)
        if "time_conditioning" in kwargs:
            conds["time_context"] = comfy.conds.CONDCrossAttn(kwargs["time_conditioning"])
        return {**conds, "num_video_frames": comfy.conds.CONDConstant(len(kwargs["noise"]))}
