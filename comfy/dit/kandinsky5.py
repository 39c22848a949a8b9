"""Kandinsky 5: text or a picture to video, and text to pictures. Published files have diffusers' names, which are ComfyUI's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes, Target
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

MARK = "visual_transformer_blocks.0.cross_attention.key_norm.weight"
FIRST = "visual_embeddings.in_layer.weight"
LITE_AXES, LARGE_AXES = (16, 24, 24), (32, 48, 48)  # of a head, for frame, row and column
LARGE_WIDTHS = (2560, 4096)  # of the network for pictures, and of the larger one for videos
PICTURE_VALUES = 64  # of a patch of a picture's latent; of a video's there are more, which say what is given of it
AS_THEY_ARE = (1.0, 1.0, 1.0)
MODULE, WEIGHT = "diffusion_model.", ".weight"


class Kandinsky5(BASE):
    """Videos."""

    unet_config: Config = {"image_model": "kandinsky5"}
    sampling_settings = {"shift": 10.0}
    latent_format: Any = latent_formats.HunyuanVideo
    memory_usage_factor = 1.25
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "kandinsky5"

    def inpaint_model(self) -> bool:
        """No: the model itself says what further channels are."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Kandinsky5

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen25_7b": ("text_encoders.qwen25_7b.transformer.",), "clip_l": ("text_encoders.clip_l.transformer.",)}


class Kandinsky5Image(Kandinsky5):
    """Pictures."""

    unet_config = {"image_model": "kandinsky5", "visual_embed_dim": PICTURE_VALUES}
    sampling_settings = {"shift": 3.0}
    latent_format: Any = latent_formats.Flux
    text_encoder_type = "kandinsky5_image"

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Kandinsky5Image


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    if MARK not in shapes:
        return None
    width, values = shapes[FIRST]
    return {
        "image_model": "kandinsky5",
        "model_dim": width,
        "axes_dims": LARGE_AXES if width in LARGE_WIDTHS else LITE_AXES,
        **({"rope_scale_factor": AS_THEY_ARE} if values == PICTURE_VALUES else {}),
        "time_dim": shapes["time_embeddings.in_layer.bias"][0],
        "ff_dim": shapes["visual_transformer_blocks.0.feed_forward.in_layer.weight"][0],
        "visual_embed_dim": values,
        "in_text_dim": shapes["text_embeddings.in_layer.weight"][1],
        "in_text_dim2": shapes["pooled_text_embeddings.in_layer.weight"][1],
        "num_text_blocks": count_blocks(shapes, "text_transformer_blocks.{}."),
        "num_visual_blocks": count_blocks(shapes, "visual_transformer_blocks.{}."),
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """Layers' own names, alone and with ``transformer.`` before them."""
    names: dict[str, Target] = {}
    for key in keys:
        if key.startswith(MODULE) and key.endswith(WEIGHT):
            bare = key.removeprefix(MODULE).removesuffix(WEIGHT)
            names |= dict.fromkeys((bare, f"transformer.{bare}"), key)
    return names


FAMILY = Family(name="Kandinsky 5", configs=(Kandinsky5Image, Kandinsky5), read_config=read_config, lora_names=lora_names)
