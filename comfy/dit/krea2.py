"""Krea 2. Published files have the authors' names; LoRA files often have diffusers'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 128  # of a head, in published files
PATCH = 2
WEIGHT = ".weight"
MODULE = "diffusion_model."
FUSION = "txtfusion"
IN_BLOCK = {
    "attn.to_q": "attn.wq",
    "attn.to_k": "attn.wk",
    "attn.to_v": "attn.wv",
    "attn.to_gate": "attn.gate",
    "attn.to_out.0": "attn.wo",
    "ff.gate": "mlp.gate",
    "ff.up": "mlp.up",
    "ff.down": "mlp.down",
}
NORMS = {
    "norm1": "prenorm.scale",
    "norm2": "postnorm.scale",
    "attn.norm_q": "attn.qknorm.qnorm.scale",
    "attn.norm_k": "attn.qknorm.knorm.scale",
}
ONCE = {
    "img_in": "first",
    "time_embed.linear_1": "tmlp.0",
    "time_embed.linear_2": "tmlp.2",
    "time_mod_proj": "tproj.1",
    "txt_in.linear_1": "txtmlp.1",
    "txt_in.linear_2": "txtmlp.3",
    "text_fusion.projector": "txtfusion.projector",
    "final_layer.linear": "last.linear",
}
PARAMETERS = {
    "txt_in.norm.weight": "txtmlp.0.scale",
    "final_layer.norm.weight": "last.norm.scale",
    "final_layer.scale_shift_table": "last.modulation.lin",
}


class Krea2(BASE):
    """Krea 2 of any size."""

    unet_config = {"image_model": "krea2"}
    sampling_settings = {"multiplier": 1.0, "shift": 1.15}
    latent_format: Any = latent_formats.Wan21
    memory_usage_factor = 2.2
    supported_inference_dtypes = (torch.bfloat16, torch.float16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "krea2"

    def inpaint_model(self) -> bool:
        """No: pictures to look at are tokens of their own."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLUX

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Krea2

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_4b": ("text_encoders.qwen3vl_4b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Krea 2 network with tensors of *shapes*, else None."""
    needed = (
        "first.weight",
        f"{FUSION}.projector.weight",
        f"{FUSION}.layerwise_blocks.0.prenorm.scale",
        "blocks.0.attn.qknorm.qnorm.scale",
    )
    if not all(name in shapes for name in needed):
        return None
    width, values = shapes["first.weight"]
    head, text_head = shapes["blocks.0.attn.qknorm.qnorm.scale"][0], shapes[f"{FUSION}.layerwise_blocks.0.attn.qknorm.qnorm.scale"][0]
    text_width = shapes[f"{FUSION}.layerwise_blocks.0.prenorm.scale"][0]
    return {
        "image_model": "krea2",
        "features": width,
        "channels": values // PATCH**2,
        "patch": PATCH,
        "layers": count_blocks(shapes, "blocks.{}."),
        "heads": shapes["blocks.0.attn.wq.weight"][0] // head,
        "kvheads": shapes["blocks.0.attn.wk.weight"][0] // head,
        "txtlayers": shapes[f"{FUSION}.projector.weight"][1],
        "txtdim": text_width,
        "txtheads": text_width // text_head,
        "txtkvheads": shapes[f"{FUSION}.layerwise_blocks.0.attn.wk.weight"][0] // text_head,
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor of Krea 2 in diffusers' names belongs, for the number of ``layers`` of *config*."""
    blocks = {f"transformer_blocks.{number}": f"blocks.{number}" for number in range(config["layers"])}
    blocks |= {
        f"text_fusion.{kind}.{number}": f"{FUSION}.{kind}.{number}" for kind in ("layerwise_blocks", "refiner_blocks") for number in (0, 1)
    }
    places = {name: Place(own) for name, own in PARAMETERS.items()}
    for leaf in ("weight", "bias"):
        places |= {f"{name}.{leaf}": Place(f"{own}.{leaf}") for name, own in ONCE.items()}
    for theirs, ours in blocks.items():
        places |= {f"{theirs}.{name}.weight": Place(f"{ours}.{own}.weight") for name, own in IN_BLOCK.items()}
        places |= {f"{theirs}.{name}.weight": Place(f"{ours}.{own}") for name, own in NORMS.items()}
        places[f"{theirs}.scale_shift_table"] = Place(f"{ours}.mod.lin", flat=True)
    return places


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {"layers": count_blocks(shapes, "transformer_blocks.{}.")}


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """diffusers' names as trainers write them; some leave out the number of the last layer of attention."""
    names: dict[str, Target] = {}
    for name, place in diffusers_places(config).items():
        if name.endswith(WEIGHT):
            bare = name.removesuffix(WEIGHT)
            for spelled in {bare, bare.removesuffix(".0")} if bare.endswith("to_out.0") else {bare}:
                own = (MODULE + spelled, f"transformer.{spelled}", f"lycoris_{spelled.replace('.', '_')}", spelled)
                names |= dict.fromkeys(own, MODULE + place.key)
    return names


FAMILY = Family(
    name="Krea 2",
    configs=(Krea2,),
    read_config=read_config,
    diffusers=DiffusersNames(("img_in.weight", "text_fusion.projector.weight", "time_mod_proj.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
