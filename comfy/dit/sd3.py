"""Stable Diffusion 3 and 3.5 of any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.dit.flux import target_of
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 64
BLOCK = "joint_blocks.{}."
MARK = "joint_blocks.0.context_block.attn.qkv.weight"
FINAL = "final_layer.linear.weight"
SWAPPED = ("norm_out.linear", "final_layer.adaLN_modulation.1")
OUTSIDE_NAMES = {
    "context_embedder": "context_embedder",
    "pos_embed.proj": "x_embedder.proj",
    "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
}
BLOCK_NAMES = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}


class SD3(BASE):
    """Stable Diffusion 3."""

    unet_config = {"image_model": "mmdit", "in_channels": 16, "pos_embed_scaling_factor": None}
    sampling_settings = {"shift": 3.0}
    latent_format: Any = latent_formats.SD3
    memory_usage_factor = 1.6
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "sd3"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SD3

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {part: (f"text_encoders.{part}.transformer.",) for part in ("clip_l", "clip_g", "t5xxl")}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None. The network of a ControlNet is none."""
    if MARK not in shapes or FINAL not in shapes:
        return None
    return network_config(shapes) | {"out_channels": shapes[FINAL][0] // shapes["x_embedder.proj.weight"][2] ** 2}


def network_config(shapes: Shapes) -> Config:
    """The ``unet_config``, without the channels that come out."""
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    config: Config = {
        "image_model": "mmdit",
        "in_channels": channels,
        "patch_size": patch,
        "depth": width // HEAD,
        "input_size": None,
        "pos_embed_scaling_factor": None,
        "x_block_self_attn_layers": [
            number for number in range(count_blocks(shapes, BLOCK)) if f"{BLOCK.format(number)}x_block.attn2.qkv.weight" in shapes
        ],
    }
    if "y_embedder.mlp.0.weight" in shapes:
        config["adm_in_channels"] = shapes["y_embedder.mlp.0.weight"][1]
    if "context_embedder.weight" in shapes:
        target, source = shapes["context_embedder.weight"]
        sizes = {"in_features": source, "out_features": target}
        config["context_embedder_config"] = {"target": "torch.nn.Linear", "params": sizes}
    if "pos_embed" in shapes:
        config |= {"num_patches": shapes["pos_embed"][1], "pos_embed_max_size": round(shapes["pos_embed"][1] ** 0.5)}
    if "joint_blocks.0.context_block.attn.ln_q.weight" in shapes:
        config["qk_norm"] = "rms"
    layers = count_blocks(shapes, "context_processor.layers.{}.")
    return config | ({"context_processor_layers": layers} if layers else {})


def diffusers_places(config: Config, count: int | None = None) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs, for the ``depth`` of *config* and *count* blocks (None: as many)."""
    width, blocks = config["depth"] * HEAD, config["depth"] if count is None else count
    places = {"pos_embed.pos_embed": Place("pos_embed")}
    for leaf in ("weight", "bias"):
        for number in range(blocks):
            here, there = f"transformer_blocks.{number}", f"joint_blocks.{number}"
            for fused, names in FUSED.items():
                parts = {name: Place(f"{there}.{fused}.{leaf}", index * width, width) for index, name in enumerate(names)}
                places |= {f"{here}.{name}.{leaf}": part for name, part in parts.items()}
            places |= {f"{here}.{name}.{leaf}": Place(f"{there}.{own}.{leaf}") for name, own in BLOCK_NAMES.items()}
        places |= {f"{name}.{leaf}": Place(f"{own}.{leaf}") for name, own in OUTSIDE_NAMES.items()}
        places[f"{SWAPPED[0]}.{leaf}"] = Place(f"{SWAPPED[1]}.{leaf}", swapped=True)
        if count is None:  # diffusers puts the scale first where nothing comes after the text
            last = f"joint_blocks.{blocks - 1}.context_block.adaLN_modulation.1.{leaf}"
            places[f"transformer_blocks.{blocks - 1}.norm1_context.linear.{leaf}"] = Place(last, swapped=True)
    return places


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {"depth": shapes["pos_embed.proj.weight"][0] // HEAD}


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """diffusers' names as trainers write them (PEFT, OneTrainer, SimpleTuner)."""
    names: dict[str, Target] = {}
    for name, place in diffusers_places(config).items():
        if name.endswith(".weight"):
            bare = name.removesuffix(".weight")
            flat = bare.replace(".", "_")
            spellings = (f"transformer.{bare}", f"base_model.model.{bare}", f"lora_transformer_{flat}", f"lycoris_{flat}")
            names |= dict.fromkeys(spellings, target_of(place))
    return names


FAMILY = Family(
    name="Stable Diffusion 3",
    configs=(SD3,),
    read_config=read_config,
    diffusers=DiffusersNames(("pos_embed.pos_embed", "transformer_blocks.0.attn.add_q_proj.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
