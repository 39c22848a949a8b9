"""OmniGen2, and Boogu, which has layers more. Published files have diffusers' names."""

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

PATCH = 2
AXES = 3
TIME_SCALE = 1000.0


class Omnigen2(BASE):
    """OmniGen2 of any size."""

    unet_config = {"image_model": "omnigen2"}
    sampling_settings = {"multiplier": 1.0, "shift": 2.6}
    latent_format: Any = latent_formats.Flux
    memory_usage_factor = 1.95
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "omnigen2"

    def inpaint_model(self) -> bool:
        """No: pictures to look at are tokens of their own."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Omnigen2

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen25_3b": ("text_encoders.qwen25_3b.transformer.",)}


class Boogu(Omnigen2):
    """Boogu of any size."""

    unet_config = {"image_model": "boogu"}
    sampling_settings = {"multiplier": 1.0, "shift": 3.16}
    memory_usage_factor = 2.15
    text_encoder_type = "boogu"

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Boogu

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_8b": ("text_encoders.qwen3vl_8b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    text = "time_caption_embed.caption_embedder.0.weight"
    if not all(name in shapes for name in (text, "image_index_embedding", "x_embedder.weight", "noise_refiner.0.attn.norm_q.weight")):
        return None
    head = shapes["noise_refiner.0.attn.norm_q.weight"][0]
    if head % (2 * AXES):
        raise ModelFileError(
            f"heads of {head} values have no known share for frames, rows and columns; it must be a multiple of {2 * AXES}"
        )
    width, values = shapes["x_embedder.weight"]
    config: Config = {
        "in_channels": values // PATCH**2,
        "hidden_size": width,
        "num_refiner_layers": count_blocks(shapes, "noise_refiner.{}."),
        "num_attention_heads": shapes["noise_refiner.0.attn.to_q.weight"][0] // head,
        "num_kv_heads": shapes["noise_refiner.0.attn.to_k.weight"][0] // head,
        "axes_dim_rope": [head // AXES] * AXES,
        "timestep_scale": TIME_SCALE,
    }
    if "double_stream_layers.0.img_instruct_attn.norm_q.weight" in shapes:
        layers = {"num_layers": "single_stream_layers", "num_double_stream_layers": "double_stream_layers"}
        counts = {name: count_blocks(shapes, stack + ".{}.") for name, stack in layers.items()}
        return {"image_model": "boogu", **config, **counts, "instruction_feat_dim": shapes[text][0]}
    return {"image_model": "omnigen2", **config, "num_layers": count_blocks(shapes, "layers.{}."), "text_feat_dim": shapes[text][0]}


FAMILY = Family(name="OmniGen2 and Boogu", configs=(Omnigen2, Boogu), read_config=read_config, lora_names=lora_names)
