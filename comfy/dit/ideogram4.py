"""Ideogram 4: the network for what to make and the one for what not to, which are alike. Published files have the authors' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit import qwen_image
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

MODULE = "diffusion_model."
FIRST = "layers.0.attention.norm_q.weight"
SPLIT = ("to_q", "to_k", "to_v")
IN_BLOCK = (
    "attention.norm_q.weight attention.norm_k.weight feed_forward.w1.weight feed_forward.w2.weight feed_forward.w3.weight "
    "attention_norm1.weight attention_norm2.weight ffn_norm1.weight ffn_norm2.weight adaln_modulation.weight adaln_modulation.bias"
).split()
ONCE = "input_proj llm_cond_proj t_embedding.mlp_in t_embedding.mlp_out adaln_proj final_layer.linear final_layer.adaln_modulation".split()


class Ideogram4(BASE):
    """Ideogram 4 of any size."""

    unet_config = {"image_model": "ideogram4"}
    sampling_settings = {"multiplier": 1.0, "shift": 1.0}
    latent_format: Any = latent_formats.Flux2
    memory_usage_factor = 11.6
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "ideogram4"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Ideogram4

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_8b": ("text_encoders.qwen3vl_8b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of an Ideogram 4 network with tensors of *shapes*, else None."""
    if not all(name in shapes for name in ("embed_image_indicator.weight", "llm_cond_norm.weight", "input_proj.weight", FIRST)):
        return None
    (width, channels), head = shapes["input_proj.weight"], shapes[FIRST][0]
    return {
        "image_model": "ideogram4",
        "in_channels": channels,
        "num_layers": count_blocks(shapes, "layers.{}."),
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "intermediate_size": shapes["layers.0.feed_forward.w1.weight"][0],
        "adaln_dim": shapes["adaln_proj.weight"][0],
        "llm_features_dim": shapes["llm_cond_norm.weight"][0],
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor of Ideogram 4 in diffusers' names belongs, for the width and the number of layers of *config*."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    places = {name: Place(name) for name in ("llm_cond_norm.weight", "embed_image_indicator.weight")}
    places |= {f"{name}.{leaf}": Place(f"{name}.{leaf}") for name in ONCE for leaf in ("weight", "bias")}
    for number in range(config["num_layers"]):
        block = f"layers.{number}"
        places |= {f"{block}.{name}": Place(f"{block}.{name}") for name in IN_BLOCK}
        places[f"{block}.attention.to_out.0.weight"] = Place(f"{block}.attention.o.weight")
        for index, name in enumerate(SPLIT):
            places[f"{block}.attention.{name}.weight"] = Place(f"{block}.attention.qkv.weight", index * width, width)
    return places


def _diffusers_sizes(shapes: Shapes) -> Config:
    head = shapes[FIRST][0]
    heads = shapes["input_proj.weight"][0] // head
    return {"num_attention_heads": heads, "attention_head_dim": head, "num_layers": count_blocks(shapes, "layers.{}.")}


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """The published names and diffusers', as trainers write them."""
    names: dict[str, Target] = dict(qwen_image.lora_names(config, keys))
    for name, place in diffusers_places(config).items():
        bare, key = name.removesuffix(".weight"), MODULE + place.key
        if name != bare and (place.length or name != place.key):
            target: Target = (key, (0, place.start, place.length)) if place.length else key
            names |= dict.fromkeys((MODULE + bare, f"transformer.{bare}", f"lycoris_{bare.replace('.', '_')}", bare), target)
    return names


FAMILY = Family(
    name="Ideogram 4",
    configs=(Ideogram4,),
    read_config=read_config,
    diffusers=DiffusersNames(
        ("embed_image_indicator.weight", "llm_cond_norm.weight", "layers.0.attention.to_q.weight"), _diffusers_sizes, diffusers_places
    ),
    lora_names=lora_names,
)
