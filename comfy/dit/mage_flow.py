"""Mage-Flow: Qwen-Image's network over larger latent pixels. Published files have diffusers' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy import latent_formats, model_base
from comfy.dit import qwen_image
from comfy.dit.family import Config, Family, Shapes

LATENT = 128  # channels


class MageFlow(qwen_image.QwenImage):
    """Mage-Flow of any size."""

    unet_config = {"image_model": "mage_flow"}
    sampling_settings = {"multiplier": 1.0, "shift": 6.0}
    latent_format: Any = latent_formats.Flux2
    memory_usage_factor = 6.5
    text_encoder_type = "mage"

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.MageFlow

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_4b": ("text_encoders.qwen3vl_4b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Mage-Flow network with tensors of *shapes*, else None."""
    if shapes.get("proj_out.weight", (0,))[0] != LATENT:
        return None
    sizes = qwen_image.read_sizes(shapes)
    return None if sizes is None else {"image_model": "mage_flow", **sizes, "out_channels": LATENT}


FAMILY = Family(name="Mage-Flow", configs=(MageFlow,), read_config=read_config, lora_names=qwen_image.lora_names)
