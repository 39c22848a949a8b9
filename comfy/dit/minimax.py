"""MiniMax H3: text, pictures, videos and sounds to a video with its sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

MARKS = ("video_patch_proj.weight", "audio_patch_proj.weight")
PATCH_VALUES = 4
CURVE = "adaln_t_table"
GATES = "blocks.0.attn.to_gate_compress.weight"


class MiniMaxH3(BASE):
    """MiniMax H3 of any size."""

    unet_config = {"image_model": "minimax_h3"}
    sampling_settings = {"shift": 12.0, "audio_shift": 3.0}
    latent_format: Any = latent_formats.MiniMaxH3AV
    memory_usage_factor = 0.114
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "minimax"

    def inpaint_model(self) -> bool:
        """No: what is shown are further rows."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow whose sound has a shift of its own."""
        return model_base.ModelType.FLOW_AV

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.MiniMaxH3

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3vl_32b": ("text_encoders.qwen3vl_32b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    if any(mark not in shapes for mark in MARKS):
        return None
    head = shapes["blocks.0.attn.q_norm.weight"][0]
    config: Config = {
        "image_model": "minimax_h3",
        "num_layers": count_blocks(shapes, "blocks.{}."),
        "token_refiner_num_layers": count_blocks(shapes, "token_refiner.blocks.{}."),
        "hidden_size": shapes[MARKS[0]][0],
        "latents_dim": shapes["final_layer.video_out.weight"][0] // PATCH_VALUES,
        "audio_latents_dim": shapes["final_layer.audio_out.weight"][0],
        "attention_head_dim": head,
        "num_attention_heads": shapes["blocks.0.attn.qkv_proj.weight"][0] // (3 * head),
        "ffn_hidden_size": shapes["blocks.0.mlp.fc1.weight"][0] // 2,
        "text_dim": shapes["condition_proj.weight"][1],
        "rope_inv_freq_len": shapes["rope.inv_freq"][0],
    }
    if GATES in shapes:
        config["gate_compress"] = True
    if CURVE in shapes:
        points, width = shapes[CURVE]
        return config | {"adaln_curve_grid": points, "time_embed_dim": width}
    inner, times = shapes["time_embedder.proj_in.weight"]
    width = shapes["time_embedder.proj_out.weight"][0]
    return config | {"timestep_input_dim": times, "time_embed_hidden_size": inner, "time_embed_dim": width}


FAMILY = Family(name="MiniMax H3", configs=(MiniMaxH3,), read_config=read_config)
