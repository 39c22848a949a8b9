"""Qwen-Image: the plain model, Edit, Edit-Plus and Layered. Published files have diffusers' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes, Target
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

PATCH = 2
WEIGHT = ".weight"
MODULE = "diffusion_model."
MAGE_FLOW_PATCH = 128  # values per token that Mage-Flow gives; it has the same names
AT_TIME_ZERO = "__index_timestep_zero__"
LAYERED = "time_text_embed.addition_t_embedding.weight"


class QwenImage(BASE):
    """Qwen-Image of any size."""

    unet_config = {"image_model": "qwen_image"}
    sampling_settings = {"multiplier": 1.0, "shift": 1.15}
    latent_format: Any = latent_formats.Wan21
    memory_usage_factor = 1.8
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "qwen_image"

    def inpaint_model(self) -> bool:
        """No: pictures to look at are tokens of their own."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLUX

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.QwenImage

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen25_7b": ("text_encoders.qwen25_7b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Qwen-Image network with tensors of *shapes*, else None."""
    sizes = read_sizes(shapes)
    if sizes is None:
        return None
    values = shapes["proj_out.weight"][0]
    if values == MAGE_FLOW_PATCH:
        return None
    config: Config = {"image_model": "qwen_image", **sizes, "out_channels": values // PATCH**2}
    if AT_TIME_ZERO in shapes:
        config["default_ref_method"] = "index_timestep_zero"
    if LAYERED in shapes:
        config |= {"use_additional_t_cond": True, "default_ref_method": "negative_index"}
    return config


def read_sizes(shapes: Shapes) -> Config | None:
    """What the ``unet_config`` of a network of this kind with tensors of *shapes* says of its layers, else None."""
    if not all(f"{name}{WEIGHT}" in shapes for name in ("txt_norm", "img_in", "proj_out", "transformer_blocks.0.attn.norm_added_q")):
        return None
    width, in_channels = shapes["img_in.weight"]
    head = shapes["transformer_blocks.0.attn.norm_added_q.weight"][0]
    return {
        "in_channels": in_channels,
        "num_layers": count_blocks(shapes, "transformer_blocks.{}."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["txt_norm.weight"][0],
        "axes_dims_rope": _axes(head),
    }


def _axes(head: int) -> list[int]:
    """How many of a head's values turn by the frame, the row and the column: an eighth, and half of the rest each."""
    if head % 32:
        raise ModelFileError(f"heads of {head} values have no known share for frames, rows and columns; it must be a multiple of 32")
    return [head // 8, head * 7 // 16, head * 7 // 16]


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """Each weight by its bare name, as diffusers has it, and as LyCORIS writes that."""
    names: dict[str, Target] = {}
    for key in keys:
        if key.startswith(MODULE) and key.endswith(WEIGHT):
            bare = key.removeprefix(MODULE).removesuffix(WEIGHT)
            names |= dict.fromkeys((bare, f"transformer.{bare}", f"lycoris_{bare.replace('.', '_')}"), key)
    return names


FAMILY = Family(name="Qwen-Image", configs=(QwenImage,), read_config=read_config, lora_names=lora_names)
