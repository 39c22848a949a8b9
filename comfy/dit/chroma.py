"""Chroma: Flux's blocks, modulated by one small network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes
from comfy.dit.flux import AXES, PATCH_SIDE, lora_names
from comfy.dit.flux import diffusers_places as flux_places
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

GUIDANCE = "distilled_guidance_layer."
OF_PIXELS = "nerf_blocks."  # Chroma Radiance


class Chroma(BASE):
    """Chroma of any size."""

    unet_config = {"image_model": "chroma"}
    sampling_settings = {"multiplier": 1.0}
    latent_format: Any = latent_formats.Flux
    memory_usage_factor = 3.2
    supported_inference_dtypes = (torch.bfloat16, torch.float16, torch.float32)
    text_encoder_type = "chroma"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over the time that Flux shifts."""
        return model_base.ModelType.FLUX

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Chroma

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"t5xxl": ("cond_stage_model.t5xxl.transformer.", "text_encoders.t5xxl.transformer.")}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Chroma network with tensors of *shapes*, else None; Chroma Radiance is none."""
    if f"{GUIDANCE}in_proj.weight" not in shapes or "img_in.weight" not in shapes or any(key.startswith(OF_PIXELS) for key in shapes):
        return None
    width, channels = shapes["img_in.weight"]
    inner, source = shapes[f"{GUIDANCE}in_proj.weight"]
    return {
        "image_model": "chroma",
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0],
        "context_in_dim": shapes["txt_in.weight"][1],
        "hidden_size": width,
        "mlp_ratio": 4.0,
        "num_heads": width // sum(AXES),
        "depth": count_blocks(shapes, "double_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_blocks.{}."),
        "axes_dim": list(AXES),
        "theta": 10000,
        "patch_size": PATCH_SIDE,
        "qkv_bias": True,
        "vec_in_dim": None,
        "txt_ids_dims": [],
        "in_dim": source,
        "out_dim": shapes[f"{GUIDANCE}out_proj.weight"][0],
        "hidden_dim": inner,
        "n_layers": count_blocks(shapes, GUIDANCE + "layers.{}."),
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs: Flux.1's places, and the small network's."""
    places = flux_places(config)
    for leaf in ("weight", "bias"):
        for layer in ("in_proj", "out_proj"):
            places[f"{GUIDANCE}{layer}.{leaf}"] = Place(f"{GUIDANCE}{layer}.{leaf}")
        for number in range(config["n_layers"]):
            layer = f"{GUIDANCE}layers.{number}"
            places[f"{layer}.linear_1.{leaf}"] = Place(f"{layer}.in_layer.{leaf}")
            places[f"{layer}.linear_2.{leaf}"] = Place(f"{layer}.out_layer.{leaf}")
    return places | {f"{GUIDANCE}norms.{number}.weight": Place(f"{GUIDANCE}norms.{number}.weight") for number in range(config["n_layers"])}


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {
        "hidden_size": shapes["x_embedder.weight"][0],
        "depth": count_blocks(shapes, "transformer_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_transformer_blocks.{}."),
        "n_layers": count_blocks(shapes, GUIDANCE + "layers.{}."),
    }


FAMILY = Family(
    name="Chroma",
    configs=(Chroma,),
    read_config=read_config,
    diffusers=DiffusersNames(("x_embedder.weight", f"{GUIDANCE}layers.0.linear_1.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
