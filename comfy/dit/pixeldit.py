"""PixelDiT: text to pixels; PiD: latents to larger pictures. Published files have the authors' names, many behind "core." or "net."."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes, Target
from comfy.dit.qwen_image import lora_names as plain_lora_names
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.pixeldit.model import PREFIXES
from comfy.supported_models_base import BASE

MARK = "pixel_embedder.proj.weight"
LATENT = "lq_proj."
DECODER = f"{LATENT}latent_proj.0.weight"
GATE = f"{LATENT}gate_modules.0.content_proj.weight"
OF_CELLS = 64  # from so many channels on a latent has a cell of pixels in each of its own
LATER = {  # PiD 1.5, by the channels that its first layer takes
    16: {"lq_latent_channels": 16, "latent_spatial_down_factor": 8, "lq_latent_unpatchify_factor": 1},
    32: {"lq_latent_channels": 128, "latent_spatial_down_factor": 16, "lq_latent_unpatchify_factor": 2},
}


class PixelDiTT2I(BASE):
    """PixelDiT of any size."""

    unet_config = {"image_model": "pixeldit_t2i"}
    sampling_settings = {"shift": 4.0}
    latent_format: Any = latent_formats.PixelDiTPixel
    memory_usage_factor = 0.04
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "pixeldit"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.PixelDiTT2I

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"gemma2_2b": ("text_encoders.gemma2_2b.transformer.",)}


class PiD(PixelDiTT2I):
    """PiD of any size."""

    unet_config = {"image_model": "pid"}
    sampling_settings = {"shift": 1.5}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.PiD


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None. Raises ``ModelFileError`` for a PiD of unknown latents."""
    prefix = next((prefix for prefix in (*PREFIXES, "") if prefix + MARK in shapes), None)
    if prefix is None or (DECODER not in shapes and not prefix):
        return None
    own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    if DECODER in shapes:
        return {**_body(own), "image_model": "pid", **_latents(shapes, count_blocks(own, "patch_blocks.{}."))}
    return {**_body(own), "image_model": "pixeldit_t2i"}


def _latents(shapes: Shapes, blocks: int) -> Config:
    """What the part that tells *blocks* of a latent shows."""
    hidden, channels = shapes[DECODER][:2]
    config: Config = {
        "lq_hidden_dim": hidden,
        "lq_num_res_blocks": sum(name.startswith(f"{LATENT}latent_proj.") and name.endswith(".block.0.weight") for name in shapes),
        "lq_interval": -(-blocks // max(1, count_blocks(shapes, LATENT + "gate_modules.{}."))),
    }
    if f"{LATENT}pit_head.weight" not in shapes:
        return config | {"lq_latent_channels": channels, "latent_spatial_down_factor": 16 if channels >= OF_CELLS else 8}
    if channels not in LATER:
        raise ModelFileError(f"{DECODER} takes {channels} channels; PiD 1.5 is known for {', '.join(map(str, LATER))}")
    config |= {"lq_conv_padding_mode": "replicate", "lq_gate_per_token": shapes[GATE][0] == 1, "pit_lq_inject": True}
    return {**config, **LATER[channels], "rope_ref_h": 2048, "rope_ref_w": 2048}


def _body(own: Shapes) -> Config:
    """The sizes of PixelDiT's network, from shapes in its names."""
    (pixel, channels), (width, values) = own[MARK], own["s_embedder.proj.weight"]
    inner = own["pixel_blocks.0.compress_to_attn.weight"][0]
    return {
        "in_channels": channels,
        "hidden_size": width,
        "num_groups": width // own["patch_blocks.0.attn.q_norm_x.weight"][0],
        "pixel_hidden_size": pixel,
        "pixel_attn_hidden_size": inner,
        "pixel_num_groups": inner // own["pixel_blocks.0.attn.q_norm.weight"][0],
        "patch_depth": count_blocks(own, "patch_blocks.{}."),
        "pixel_depth": count_blocks(own, "pixel_blocks.{}."),
        "patch_size": math.isqrt(values // channels),
        "txt_embed_dim": own["y_embedder.proj.weight"][1],
        "txt_max_length": own["y_pos_embedding"][1],
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """The published names, with and without what stands before them in files."""
    names = dict(plain_lora_names(config, keys))
    bare = {name: target for name, target in names.items() if not name.startswith(("transformer.", "lycoris_"))}
    return names | {f"{before}core.{name}": target for name, target in bare.items() for before in ("", "diffusion_model.")}


FAMILY = Family(name="PixelDiT", configs=(PixelDiTT2I, PiD), read_config=read_config, lora_names=lora_names)
