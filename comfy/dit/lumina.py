"""Z-Image (turbo, base, omni) and Lumina Image 2, which have the same kind of network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

PATCH = 2
WEIGHT = ".weight"
MODULE = "diffusion_model."
BLOCK = "noise_refiner.0"
STACKS = ("layers", "noise_refiner", "context_refiner", "siglip_refiner")
SAME_IN_BLOCK = (
    "attention_norm1.weight",
    "attention_norm2.weight",
    "feed_forward.w1.weight",
    "feed_forward.w2.weight",
    "feed_forward.w3.weight",
    "ffn_norm1.weight",
    "ffn_norm2.weight",
    "adaLN_modulation.0.weight",
    "adaLN_modulation.0.bias",
)
IN_BLOCK = {
    "attention.norm_q.weight": "attention.q_norm.weight",
    "attention.norm_k.weight": "attention.k_norm.weight",
    "attention.to_out.0.weight": "attention.out.weight",
    "attention.to_out.0.bias": "attention.out.bias",
}
ONCE = {
    "all_final_layer.2-1.linear": "final_layer.linear",
    "all_final_layer.2-1.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
    "all_x_embedder.2-1": "x_embedder",
    "cap_embedder.1": "cap_embedder.1",
    "siglip_embedder.1": "siglip_embedder.1",
    "t_embedder.mlp.0": "t_embedder.mlp.0",
    "t_embedder.mlp.2": "t_embedder.mlp.2",
}
SAME_ONCE = ("cap_embedder.0.weight", "siglip_embedder.0.weight", "x_pad_token", "cap_pad_token", "siglip_pad_token")


class Lumina2(BASE):
    """Lumina Image 2."""

    unet_config = {"image_model": "lumina2"}
    sampling_settings = {"multiplier": 1.0, "shift": 6.0}
    latent_format: Any = latent_formats.Flux
    memory_usage_factor = 1.4
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "lumina2"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Lumina2

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"gemma2_2b": ("text_encoders.gemma2_2b.transformer.",)}


class ZImage(Lumina2):
    """Z-Image: turbo, base and omni."""

    unet_config = {"image_model": "lumina2", "z_image_modulation": True}
    sampling_settings = {"multiplier": 1.0, "shift": 3.0}
    memory_usage_factor = 2.8

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3_4b": ("text_encoders.qwen3_4b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None; Z-Image for pixels is none."""
    if "cap_embedder.1.weight" not in shapes or f"{BLOCK}.attention.k_norm.weight" not in shapes or "dec_net.cond_embed.weight" in shapes:
        return None
    is_z_image = f"{BLOCK}.adaLN_modulation.0.weight" in shapes
    width, text_width = shapes["cap_embedder.1.weight"]
    head = shapes[f"{BLOCK}.attention.k_norm.weight"][0]
    heads = width // head
    config: Config = {
        "image_model": "lumina2",
        "patch_size": PATCH,
        "in_channels": shapes["x_embedder.weight"][1] // PATCH**2,
        "dim": width,
        "cap_feat_dim": text_width,
        "n_layers": count_blocks(shapes, "layers.{}."),
        "n_refiner_layers": count_blocks(shapes, "noise_refiner.{}."),
        "qk_norm": True,
        "n_heads": heads,
        "n_kv_heads": (shapes[f"{BLOCK}.attention.qkv.weight"][0] // head - heads) // 2,
        "axes_dims": _axes(head, is_z_image),
        **feed_forward(width, shapes[f"{BLOCK}.feed_forward.w1.weight"][0], 8 / 3 if is_z_image else 4.0),
    }
    if not is_z_image:
        config |= {"axes_lens": [300, 512, 512], "rope_theta": 10000.0}
        if "clip_text_pooled_proj.0.weight" in shapes:
            config["clip_text_dim"] = shapes["clip_text_pooled_proj.0.weight"][0]
        return config
    config |= {"axes_lens": [1536, 512, 512], "rope_theta": 256.0, "z_image_modulation": True, "time_scale": 1000.0}
    if "cap_pad_token" in shapes:
        config["pad_tokens_multiple"] = 32
    if "siglip_embedder.0.weight" in shapes:
        config["siglip_feat_dim"] = shapes["siglip_embedder.0.weight"][0]
    return config


def _axes(head: int, is_z_image: bool) -> list[int]:
    """How many of a head's values turn by the frame, the row and the column: a quarter and the rest, or a third each."""
    unit = 16 if is_z_image else 6
    if head % unit:
        raise ModelFileError(f"heads of {head} values have no known share for frames, rows and columns; it must be a multiple of {unit}")
    return [head // 4, head * 3 // 8, head * 3 // 8] if is_z_image else [head // 3] * 3


def feed_forward(width: int, inner: int, multiplier: float) -> Config:
    """Settings that make a feed-forward layer of *inner* values: the published rule, or the number itself."""
    if -(-int(multiplier * width) // 256) * 256 == inner:
        return {"ffn_dim_multiplier": multiplier}
    return {"ffn_dim_multiplier": (inner + 0.5) / width, "multiple_of": 1}  # half a value more, because the product is cut to whole ones


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor of Z-Image in diffusers' names belongs, for the ``dim`` and the numbers of layers of *config*."""
    width = config["dim"]
    places = {name: Place(name) for name in SAME_ONCE}
    for leaf in ("weight", "bias"):
        places |= {f"{name}.{leaf}": Place(f"{own}.{leaf}") for name, own in ONCE.items()}
    for stack in STACKS:
        for number in range(config["n_layers"] if stack == "layers" else config["n_refiner_layers"]):
            block = f"{stack}.{number}"
            for index, name in enumerate(("to_q", "to_k", "to_v")):
                places[f"{block}.attention.{name}.weight"] = Place(f"{block}.attention.qkv.weight", index * width, width)
            places |= {f"{block}.{name}": Place(f"{block}.{own}") for name, own in IN_BLOCK.items()}
            places |= {f"{block}.{name}": Place(f"{block}.{name}") for name in SAME_IN_BLOCK}
    return places


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {
        "dim": shapes["all_x_embedder.2-1.weight"][0],
        "n_layers": count_blocks(shapes, "layers.{}."),
        "n_refiner_layers": count_blocks(shapes, "noise_refiner.{}."),
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """diffusers' names as trainers write them."""
    names: dict[str, Target] = {}
    for name, place in diffusers_places(config).items():
        if name.endswith(WEIGHT):
            bare, key = name.removesuffix(WEIGHT), MODULE + place.key
            target: Target = (key, (0, place.start, place.length)) if place.length else key
            names |= dict.fromkeys((MODULE + bare, f"transformer.{bare}", f"lycoris_{bare.replace('.', '_')}", bare), target)
    return names


FAMILY = Family(
    name="Z-Image and Lumina Image 2",
    configs=(ZImage, Lumina2),
    read_config=read_config,
    diffusers=DiffusersNames(("all_x_embedder.2-1.weight", f"{BLOCK}.attention.to_q.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
