"""ERNIE-Image. Published files have diffusers' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.dit.qwen_image import lora_names
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

SHARES = 16  # of a head: 4 of its values are for text and frames, 6 for rows, 6 for columns


class ErnieImage(BASE):
    """ERNIE-Image of any size."""

    unet_config = {"image_model": "ernie"}
    sampling_settings = {"multiplier": 1000.0, "shift": 3.0}
    latent_format: Any = latent_formats.Flux2
    memory_usage_factor = 10.0
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "flux2"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.ErnieImage

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"ministral3_3b": ("text_encoders.ministral3_3b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    first, patch = "layers.0.self_attention.norm_q.weight", "x_embedder.proj.weight"
    if not all(name in shapes for name in (first, patch, "layers.0.mlp.linear_fc2.weight", "final_linear.weight")):
        return None
    head, (width, channels, side, _) = shapes[first][0], shapes[patch]
    if head % SHARES:
        raise ModelFileError(f"heads of {head} values have no known share for text, rows and columns; it must be a multiple of {SHARES}")
    return {
        "image_model": "ernie",
        "hidden_size": width,
        "num_attention_heads": width // head,
        "num_layers": count_blocks(shapes, "layers.{}."),
        "ffn_hidden_size": shapes["layers.0.mlp.linear_fc2.weight"][1],
        "in_channels": channels,
        "out_channels": shapes["final_linear.weight"][0] // side**2,
        "patch_size": side,
        "text_in_dim": shapes.get("text_proj.weight", (width, width))[1],
        "rope_axes_dim": [head // 4, head * 3 // 8, head * 3 // 8],
    }


FAMILY = Family(name="ERNIE-Image", configs=(ErnieImage,), read_config=read_config, lora_names=lora_names)
