"""HiDream-I1 (full, dev, fast) and -E1, which changes a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes, Target
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 128
PATCH = 2
LLAMA_LAYERS = 32
WEIGHT, MODULE = ".weight", "diffusion_model."
PROJECTION = "caption_projection.{}.linear.weight"


class HiDream(BASE):
    """HiDream of any size."""

    unet_config = {"image_model": "hidream"}
    latent_format: Any = latent_formats.Flux
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "hidream"

    def inpaint_model(self) -> bool:
        """No: a picture to change stands beside the noise as tokens."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.HiDream

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {part: (f"text_encoders.{part}.transformer.",) for part in ("clip_l", "clip_g", "t5xxl", "llama")}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a HiDream network with tensors of *shapes*, else None."""
    first = PROJECTION.format(0)
    if first not in shapes or "double_stream_blocks.0.block.adaLN_modulation.1.weight" not in shapes:
        return None
    width, llama = shapes[first]
    double, single = (count_blocks(shapes, f"{kind}_stream_blocks.{{}}.") for kind in ("double", "single"))
    channels = shapes["x_embedder.proj.weight"][1] // PATCH**2
    return {
        "image_model": "hidream",
        "attention_head_dim": HEAD,
        "axes_dims_rope": [64, 32, 32],
        "caption_channels": [shapes[PROJECTION.format(double + single)][1], llama],
        "max_resolution": [128, 128],
        "in_channels": channels,
        "out_channels": channels,
        "llama_layers": [min(number, LLAMA_LAYERS - 1) for number in range(double + single)],
        "num_attention_heads": width // HEAD,
        "num_routed_experts": count_blocks(shapes, "double_stream_blocks.0.block.ff_i.experts.{}."),
        "num_activated_experts": 2,
        "num_layers": double,
        "num_single_layers": single,
        "patch_size": PATCH,
        "text_emb_dim": shapes["p_embedder.pooled_embedder.linear_1.weight"][1],
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """Each weight as SimpleTuner writes it."""
    names: dict[str, Target] = {}
    for key in keys:
        if key.startswith(MODULE) and key.endswith(WEIGHT):
            bare = key.removeprefix(MODULE).removesuffix(WEIGHT)
            names |= dict.fromkeys((f"transformer.{bare}", f"lycoris_{bare.replace('.', '_')}"), key)
    return names


FAMILY = Family(name="HiDream", configs=(HiDream,), read_config=read_config, lora_names=lora_names)
