"""Qwen-Image 2.1. Published files have diffusers' names, in which a gate and what it gates may be one weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes, Target
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

WEIGHT = ".weight"
MODULE = "diffusion_model."
FUSED, GATE, GATED = "gate_up", "gate_layer", "proj"


class QwenImage21(BASE):
    """Qwen-Image 2.1 of any size."""

    unet_config = {"image_model": "qwen_image21"}
    sampling_settings = {"multiplier": 1.0, "shift": 0.69}
    latent_format: Any = latent_formats.QwenImage21
    memory_usage_factor = 6.0
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
        return model_base.QwenImage21

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_8b": ("text_encoders.qwen3vl_8b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Qwen-Image 2.1 network with tensors of *shapes*, else None."""
    needed = ("txt_in.text_norm", "txt_in.in_layer", "img_in", "proj_out", "modulation.1", "transformer_blocks.0.attn.norm_q")
    if not all(f"{name}{WEIGHT}" in shapes for name in needed):
        return None
    first = "transformer_blocks.0.img_mlp."
    fused = f"{first}{FUSED}{WEIGHT}" in shapes
    inner = shapes[f"{first}{FUSED}{WEIGHT}"][0] // 2 if fused else shapes[f"{first}{GATED}{WEIGHT}"][0]
    width, in_channels = shapes["img_in.weight"]
    head = shapes["transformer_blocks.0.attn.norm_q.weight"][0]
    return {
        "image_model": "qwen_image21",
        "in_channels": in_channels,
        "out_channels": shapes["proj_out.weight"][0],
        "num_layers": count_blocks(shapes, "transformer_blocks.{}."),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "context_in_dim": shapes["txt_in.text_norm.weight"][0],
        "mlp_ratio": inner // width,
        "axes_dims_rope": _axes(head),
        "fused_mlp": fused,
    }


def _axes(head: int) -> list[int]:
    """How many of a head's values turn by the frame, the row and the column: an eighth, and half of the rest each."""
    if head % 32:
        raise ModelFileError(f"heads of {head} values have no known share for frames, rows and columns; it must be a multiple of 32")
    return [head // 8, head * 7 // 16, head * 7 // 16]


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """Each weight by its bare name, as diffusers has it, and as LyCORIS writes that; of a joint weight both parts as well."""
    names: dict[str, Target] = {}
    for key in keys:
        if not key.startswith(MODULE) or not key.endswith(WEIGHT):
            continue
        bare = key.removeprefix(MODULE).removesuffix(WEIGHT)
        targets: dict[str, Target] = {bare: key}
        if bare.endswith(FUSED):
            rows = config["mlp_ratio"] * config["num_attention_heads"] * config["attention_head_dim"]
            for part, name in enumerate((GATE, GATED)):
                targets[bare.removesuffix(FUSED) + name] = (key, (0, part * rows, rows))
        for name, target in targets.items():
            spelled = name, f"transformer.{name}", f"{MODULE}{name}", f"lycoris_{name.replace('.', '_')}"
            names |= dict.fromkeys(spelled, target)
    return names


FAMILY = Family(name="Qwen-Image 2.1", configs=(QwenImage21,), read_config=read_config, lora_names=lora_names)
