"""Wan's models that hear as samplers see them: HuMo and S2V."""

from __future__ import annotations

import math
from typing import Any

import torch

import comfy.conds
from comfy.dit.models.wan import MASKS, WAN21
from comfy.ldm.wan.sound import HumoWanModel, WanModel_S2V

# What the sampler has for black frames that the autoencoder encoded, 16 channels each: the first, the second, and every later one.
BLACK = (
    ".8660 -.4326 -.0017 -.4884 -.5283 .9207 -.9896 .4433 -.5543 -.0113 .5753 -.6000 -.8346 -.3497 -.1926 -.6938",
    "1.0869 -1.2370 .0206 -.4357 -.6411 2.0307 -1.5972 1.2659 -.8595 -.4654 .9638 -1.6330 -1.4310 -.1098 -.3856 -1.4583",
    ".8642 -1.8583 .1577 .1350 -.3641 2.5863 -1.9670 1.6065 -1.0475 -.8678 1.1734 -1.8138 -1.5933 -.7721 -.3289 -1.3745",
)


def black_frames(like: torch.Tensor) -> torch.Tensor:
    """Latents of black frames of *like*'s batch, frames, height and width, as the sampler has them: B x 16 x frames x height x width."""
    frames = torch.tensor([[float(number) for number in frame.split()] for frame in BLACK]).T.to(like)
    places = torch.arange(like.shape[2]).clamp(max=len(BLACK) - 1)
    return frames[:, places][None, :, :, None, None].expand(len(like), -1, -1, *like.shape[3:])


class WAN21_HuMo(WAN21):  # noqa: N801 - ComfyUI's name
    """HuMo: sound, and a picture's latent that stands behind the video."""

    NETWORK = HumoWanModel

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With ``audio_embed`` and ``reference_latent``; the large network has black frames beside the video, and a mask of the picture."""
        references = kwargs.pop("reference_latents", None)
        conds = super().extra_conds(**kwargs)
        if kwargs.get("audio_embed") is not None:
            conds["audio_embed"] = comfy.conds.CONDRegular(kwargs["audio_embed"])
        reference = None if references is None else self.process_latent_in(references[-1])
        if "c_concat" in conds:
            noise = kwargs["noise"]
            free = noise.new_zeros((len(noise), MASKS, *noise.shape[2:]))
            conds["c_concat"] = comfy.conds.CONDNoiseShape(torch.cat((free, black_frames(noise)), dim=1))
            if reference is not None:
                kept = torch.ones_like(reference[:, :MASKS])
                reference = torch.cat((torch.zeros_like(reference), kept, reference), dim=1)
        if reference is not None:
            conds["reference_latent"] = comfy.conds.CONDRegular(reference)
        return conds


class WAN22_S2V(WAN21):  # noqa: N801 - ComfyUI's name
    """S2V: sound, a picture, the frames before, and a control video."""

    NETWORK = WanModel_S2V

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.memory_usage_factor_conds = ("reference_latent", "reference_motion")
        self.memory_usage_shape_process = {"reference_motion": lambda shape: [shape[0], shape[1], 1.5, shape[-2], shape[-1]]}

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """With ``audio_embed``, ``reference_latent``, ``reference_motion`` and ``control_video``."""
        references = kwargs.pop("reference_latents", None)
        conds = super().extra_conds(**kwargs)
        if kwargs.get("audio_embed") is not None:
            conds["audio_embed"] = comfy.conds.CONDRegular(kwargs["audio_embed"])
        latents = {"reference_latent": None if references is None else references[-1]}
        latents |= {name: kwargs.get(name) for name in ("reference_motion", "control_video")}
        for name, latent in latents.items():
            if latent is not None:
                conds[name] = comfy.conds.CONDRegular(self.process_latent_in(latent))
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """The picture, as one row of its latent pixels, and the frames before."""
        shapes: dict[str, Any] = {}
        references, motion = kwargs.get("reference_latents"), kwargs.get("reference_motion")
        if references is not None:
            channels = self.latent_format.latent_channels
            shapes["reference_latent"] = [1, channels, sum(math.prod(latent.shape) for latent in references) // channels]
        if motion is not None:
            shapes["reference_motion"] = motion.shape
        return shapes
