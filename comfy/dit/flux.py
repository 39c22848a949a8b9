"""Flux.1: dev, schnell, Fill, the models for edges and depth, Kontext, and whatever else has the same network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE, ClipTarget
from comfy.text_encoders.flux import flux_target

AXES = (16, 56, 56)
PATCH_SIDE = 2
LATENT_CHANNELS = 16
MLP_RATIO = 4
LONGCAT_TEXT = 3584  # width of Qwen2.5-VL's states
KEY_NORM = "double_blocks.0.img_attn.norm.key_norm"
OTHER_FAMILIES = ("distilled_guidance_layer.", "double_stream_modulation_img.")  # Chroma, Flux.2

# Of one double block: diffusers' name and the published one.
DOUBLE_NAMES = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "ff.linear_in": "img_mlp.0",  # as LyCORIS says it
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
DOUBLE_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
SINGLE_NAMES = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
    "attn.to_qkv_mlp_proj": "linear1",
    "attn.to_out": "linear2",
}
SINGLE_FUSED = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
OUTSIDE_NAMES = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
}
SWAPPED = ("norm_out.linear", "final_layer.adaLN_modulation.1")  # diffusers puts the scale first, Flux the shift


class Flux(BASE):
    """Flux.1 dev, Kontext, and the models that take a picture's latent beside the noise."""

    unet_config = {"image_model": "flux", "guidance_embed": True}
    latent_format: Any = latent_formats.Flux
    memory_usage_factor = 3.1
    supported_inference_dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)

    def inpaint_model(self) -> bool:
        """No: :class:`comfy.model_base.Flux` sees by itself what channels there are."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over the time that Flux shifts."""
        return model_base.ModelType.FLUX

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Flux

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"clip_l": ("text_encoders.clip_l.transformer.",), "t5xxl": ("text_encoders.t5xxl.transformer.",)}

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> ClipTarget:
        """CLIP-L and T5-XXL."""
        return flux_target(self.text_encoder_parts())


class FluxInpaint(Flux):
    """Flux.1 Fill: the masked picture and the mask beside the noise. Half precision overflows."""

    unet_config = {"image_model": "flux", "guidance_embed": True, "in_channels": 96}
    supported_inference_dtypes = (torch.bfloat16, torch.float32)


class FluxSchnell(Flux):
    """Flux.1 schnell: no guidance, and time as it is."""

    unet_config = {"image_model": "flux", "guidance_embed": False}
    sampling_settings = {"multiplier": 1.0, "shift": 1.0}

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow."""
        return model_base.ModelType.FLOW


class LongCatImage(Flux):
    """LongCat-Image: Flux.1's network with the text as places of a row, and Qwen2.5-VL's states."""

    unet_config = {
        "image_model": "flux",
        "guidance_embed": False,
        "vec_in_dim": None,
        "context_in_dim": LONGCAT_TEXT,
        "txt_ids_dims": [1, 2],
    }
    memory_usage_factor = 2.5
    text_encoder_type = "longcat_image"

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.LongCatImage

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen25_7b": ("text_encoders.qwen25_7b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Flux.1 network (or that of Ovis-Image or LongCat-Image) with tensors of *shapes*, else None."""
    has_norm = f"{KEY_NORM}.scale" in shapes or f"{KEY_NORM}.weight" in shapes
    if not has_norm or "img_in.weight" not in shapes or any(key.startswith(OTHER_FAMILIES) for key in shapes):
        return None
    width, channels = shapes["img_in.weight"]
    vector = shapes.get("vector_in.in_layer.weight")
    yak, normed = "double_blocks.0.img_mlp.gate_proj.weight" in shapes, "txt_norm.scale" in shapes or "txt_norm.weight" in shapes
    in_a_row = (yak and normed) or (vector is None and shapes["txt_in.weight"][1] == LONGCAT_TEXT)
    return {
        "image_model": "flux",
        "in_channels": channels // PATCH_SIDE**2,
        "out_channels": LATENT_CHANNELS,
        "vec_in_dim": None if vector is None else vector[1],
        "context_in_dim": shapes["txt_in.weight"][1],
        "hidden_size": width,
        "mlp_ratio": float(MLP_RATIO),
        "num_heads": width // sum(AXES),
        "depth": count_blocks(shapes, "double_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_blocks.{}."),
        "axes_dim": list(AXES),
        "theta": 10000,
        "patch_size": PATCH_SIDE,
        "qkv_bias": True,
        "guidance_embed": "guidance_in.in_layer.weight" in shapes,
        "txt_ids_dims": [1, 2] if in_a_row else [],
        **({"yak_mlp": True} if yak else {}),
        **({"txt_norm": True} if normed else {}),
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs, for the ``hidden_size``, ``depth`` and ``depth_single_blocks`` of *config*."""
    width = config["hidden_size"]
    places: dict[str, Place] = {}
    for leaf in ("weight", "bias"):
        for number in range(config["depth"]):
            here, there = f"transformer_blocks.{number}", f"double_blocks.{number}"
            for fused, names in DOUBLE_FUSED.items():
                parts = {name: Place(f"{there}.{fused}.{leaf}", index * width, width) for index, name in enumerate(names)}
                places |= {f"{here}.{name}.{leaf}": part for name, part in parts.items()}
            places |= {f"{here}.{name}.{leaf}": Place(f"{there}.{own}.{leaf}") for name, own in DOUBLE_NAMES.items()}
        for number in range(config["depth_single_blocks"]):
            here, there = f"single_transformer_blocks.{number}", f"single_blocks.{number}"
            for index, name in enumerate(SINGLE_FUSED):
                length = width * MLP_RATIO if name == "proj_mlp" else width
                places[f"{here}.{name}.{leaf}"] = Place(f"{there}.linear1.{leaf}", index * width, length)
            places |= {f"{here}.{name}.{leaf}": Place(f"{there}.{own}.{leaf}") for name, own in SINGLE_NAMES.items()}
        places |= {f"{name}.{leaf}": Place(f"{own}.{leaf}") for name, own in OUTSIDE_NAMES.items()}
        places[f"{SWAPPED[0]}.{leaf}"] = Place(f"{SWAPPED[1]}.{leaf}", swapped=True)
    return places


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {
        "hidden_size": shapes["x_embedder.weight"][0],
        "depth": count_blocks(shapes, "transformer_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_transformer_blocks.{}."),
    }


def swap_halves(change: torch.Tensor) -> torch.Tensor:
    """*change* with the two halves of its rows exchanged (new tensor)."""
    first, second = change.chunk(2)
    return torch.cat((second, first))


def target_of(place: Place, prefix: str = "diffusion_model.") -> Target:
    """*place* as ``add_patches`` takes it."""
    key = prefix + place.key
    if place.swapped:
        return key, None, swap_halves
    return (key, (0, place.start, place.length)) if place.length else key


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """diffusers' names as trainers write them (SimpleTuner, OneTrainer, LyCORIS, DiffSynth), and the attention's share of ``linear1``."""
    names: dict[str, Target] = {}
    for name, place in diffusers_places(config).items():
        if name.endswith(".weight"):
            bare, target = name.removesuffix(".weight"), target_of(place)
            flat = bare.replace(".", "_")
            names |= dict.fromkeys((f"transformer.{bare}", f"lycoris_{flat}", f"lora_transformer_{flat}", bare), target)
    for key in keys:
        if key.endswith(".linear1.weight"):
            names[f"{key.removesuffix('.weight')}_qkv"] = key, (0, 0, 3 * config["hidden_size"])
    return names


FAMILY = Family(
    name="Flux.1",
    configs=(LongCatImage, FluxInpaint, Flux, FluxSchnell),
    read_config=read_config,
    diffusers=DiffusersNames(("x_embedder.weight", "single_transformer_blocks.0.norm.linear.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
