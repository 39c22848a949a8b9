"""Flux.3 Image: klein, the model to train from and the one for few steps. Published files have the authors' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

MODULE = "diffusion_model."
WEIGHT = ".weight"
AXES = 4  # frame, row, column, and the place of a text's token or a picture's layer
MARK = "early_stream_modulations.image.lin.weight"
FIRST = "single_blocks.0.norm.query_norm.scale"
FEW_STEPS = "ref_time_in.in_layer.weight"
MODES = ("image", "image_cond", "txt")
IN_BLOCK = {
    "attn.to_q.weight": "q_proj.weight",
    "attn.to_k.weight": "k_proj.weight",
    "attn.to_v.weight": "v_proj.weight",
    "attn.to_out.0.weight": "attn_out.weight",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "ff.linear_in.weight": "mlp_in.weight",
    "ff.linear_out.weight": "mlp_out.weight",
}
ONCE = {
    "timestep_embedder.linear_1": "time_in.in_layer",
    "timestep_embedder.linear_2": "time_in.out_layer",
    "target_timestep_embedder.linear_1": "ref_time_in.in_layer",
    "target_timestep_embedder.linear_2": "ref_time_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedders.image": "emb_in.image",
    "x_embedders.image_cond": "emb_in.image_cond",
    "proj_out": "final_layer.image.linear",
}
LAST = "norm_out.linear.weight", "final_layer.image.adaLN_modulation.1.weight"  # whose halves diffusers has the other way round


class Flux3(BASE):
    """Flux.3 of any size."""

    unet_config = {"image_model": "flux3"}
    sampling_settings = {"multiplier": 1.0, "shift": 6.93}
    latent_format: Any = latent_formats.Flux2
    memory_usage_factor = 14.6  # of a network of its width, as for Flux.2
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "flux3"

    def inpaint_model(self) -> bool:
        """No: pictures to look at are tokens of their own."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Flux3

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_4b": ("text_encoders.qwen3vl_4b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Flux.3 network with tensors of *shapes*, else None."""
    needed = (MARK, FIRST, "emb_in.image.weight", "emb_in.image_cond.weight", "txt_in.weight", "time_in.in_layer.weight")
    if not all(name in shapes for name in needed):
        return None
    (width, channels), head = shapes["emb_in.image.weight"], shapes[FIRST][0]
    if head % (2 * AXES):
        raise ModelFileError(f"heads of {head} values cannot be shared among {AXES} axes; it must be a multiple of {2 * AXES}")
    return {
        "image_model": "flux3",
        "in_channels": channels,
        "cond_in_channels": shapes["emb_in.image_cond.weight"][1],
        "context_in_dim": shapes["txt_in.weight"][1],
        "hidden_size": width,
        "num_heads": width // head,
        "depth": count_blocks(shapes, "txt_mode_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_blocks.{}."),
        "mlp_ratio": shapes["single_blocks.0.mlp_out.weight"][1] / width,
        "time_dim": shapes["time_in.in_layer.weight"][1],
        "axes_dim": [head // AXES] * AXES,
        "flow_map": FEW_STEPS in shapes,
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor of Flux.3 in diffusers' names belongs, for the numbers of blocks of *config*."""
    places = {f"{name}.weight": Place(f"{own}.weight") for name, own in ONCE.items()}
    places[LAST[0]] = Place(LAST[1], swapped=True)
    for kind in ("early_stream_modulations", "single_stream_modulations"):
        places |= {f"{kind}.{mode}.linear.weight": Place(f"{kind}.{mode}.lin.weight") for mode in MODES}
    early = range(config["depth"])
    blocks = {f"mode_blocks.{mode}.{number}": f"content_mode_blocks.{mode}.{number}" for mode in MODES[:2] for number in early}
    blocks |= {f"txt_mode_blocks.{number}": f"txt_mode_blocks.{number}" for number in early}
    blocks |= {f"single_transformer_blocks.{number}": f"single_blocks.{number}" for number in range(config["depth_single_blocks"])}
    for theirs, ours in blocks.items():
        places |= {f"{theirs}.{name}": Place(f"{ours}.{own}") for name, own in IN_BLOCK.items()}
    return places


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {
        "depth": count_blocks(shapes, "txt_mode_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_transformer_blocks.{}."),
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """The published names and diffusers', as trainers write them. What diffusers has the other way round has no name of diffusers'."""
    own = {key.removeprefix(MODULE): key for key in keys if key.startswith(MODULE) and key.endswith(WEIGHT)}
    targets = {name.removesuffix(WEIGHT): key for name, key in own.items()}
    for name, place in diffusers_places(config).items():
        if place.key in own and not place.swapped:
            targets[name.removesuffix(WEIGHT)] = own[place.key]
    names: dict[str, Target] = {}
    for bare, key in targets.items():
        names |= dict.fromkeys((MODULE + bare, f"transformer.{bare}", f"lycoris_{bare.replace('.', '_')}", bare), key)
    return names


FAMILY = Family(
    name="Flux.3",
    configs=(Flux3,),
    read_config=read_config,
    diffusers=DiffusersNames(
        ("early_stream_modulations.image.linear.weight", "x_embedders.image.weight", "context_embedder.weight"),
        _diffusers_sizes,
        diffusers_places,
    ),
    lora_names=lora_names,
)
