"""ACE-Step 1: music from tags and lyrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes, Target
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 128
MARK = "genre_embedder.weight"
WEIGHT = ".weight"
MODULE = "diffusion_model."


class ACEStep(BASE):
    """The one kind."""

    unet_config = {"audio_model": "ace"}
    sampling_settings = {"shift": 3.0}
    latent_format: Any = latent_formats.ACEAudio
    memory_usage_factor = 0.5
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "ace"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.ACEStep

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"umt5base": ("text_encoders.umt5base.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None. Raises ``ModelFileError`` for one without heads of 128."""
    if MARK not in shapes or "lyric_embs.weight" not in shapes:
        return None
    width, text = shapes[MARK]
    if width % HEAD:
        raise ModelFileError(f"a network of {width} values per token has no known number of heads; it must be a multiple of {HEAD}")
    vocabulary, lyrics = shapes["lyric_embs.weight"]
    inner, channels, *patch = shapes["proj_in.early_conv_layers.0.weight"]
    return {
        "audio_model": "ace",
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0] // (patch[0] * patch[1]),
        "num_layers": count_blocks(shapes, "transformer_blocks.{}."),
        "attention_head_dim": HEAD,
        "num_attention_heads": width // HEAD,
        "mlp_ratio": shapes["transformer_blocks.0.ff.point_conv.conv.weight"][1] / width,
        "speaker_embedding_dim": shapes["speaker_embedder.weight"][1],
        "text_embedding_dim": text,
        "lyric_encoder_vocab_size": vocabulary,
        "lyric_hidden_size": lyrics,
        "lyric_heads": shapes["lyric_encoder.encoders.0.self_attn.pos_bias_u"][0],
        "lyric_units": shapes["lyric_encoder.encoders.0.feed_forward.w_1.weight"][0],
        "lyric_blocks": count_blocks(shapes, "lyric_encoder.encoders.{}."),
        "patch_size": patch,
        "patch_channels": inner,
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """The authors' names, without a prefix."""
    return {key.removeprefix(MODULE).removesuffix(WEIGHT): key for key in keys if key.startswith(MODULE) and key.endswith(WEIGHT)}


FAMILY = Family(name="ACE-Step 1", configs=(ACEStep,), read_config=read_config, lora_names=lora_names)
