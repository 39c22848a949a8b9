"""Stable Audio Open 1.0 and its relatives, and Stable Audio 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 64
MARK = "transformer.rotary_pos_emb.inv_freq"
FIRST = "transformer.layers.0."
LOCAL, SHARED = f"{FIRST}to_local_embed.0.weight", "transformer.global_cond_embedder.0.weight"


class StableAudio(BASE):
    """Text to sound."""

    unet_config = {"audio_model": "dit1.0"}
    sampling_settings = {"sigma_max": 500.0, "sigma_min": 0.03}
    latent_format: Any = latent_formats.StableAudio1
    vae_key_prefix = ("pretransform.model.",)
    text_encoder_key_prefix = ("text_encoders.",)
    further_key_prefixes: tuple[str, ...] = ("conditioner.conditioners.seconds_",)
    text_encoder_type = "stable_audio"

    def inpaint_model(self) -> bool:
        """No."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A velocity over a continuous schedule."""
        return model_base.ModelType.V_PREDICTION_CONTINUOUS

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.StableAudio1

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"t5base": ("text_encoders.t5base.transformer.",)}

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The network's tensors under their names in a checkpoint."""
        return {f"model.model.{name}": value for name, value in state_dict.items()}


class StableAudio3(StableAudio):
    """Text to sound, or to what is missing in a sound: by a flow, with T5Gemma."""

    unet_config = {"audio_model": "dit1.0", "global_cond_shared_embed": True}
    sampling_settings = {"multiplier": 1.0, "shift": 2.0}
    latent_format: Any = latent_formats.StableAudio3
    memory_usage_factor = 7.0
    further_key_prefixes = ("conditioner.conditioners.seconds_", "conditioner.conditioners.prompt.padding_embedding")

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.StableAudio3

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"t5gemma": ("text_encoders.t5gemma.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    if MARK not in shapes:
        return None
    width, channels = shapes["to_timestep_embed.0.weight"][0], shapes["postprocess_conv.weight"][0]
    inner, text = shapes["to_cond_embed.0.weight"]
    norm, root_norm = (shapes.get(f"{FIRST}self_attn.q_norm.{leaf}") for leaf in ("weight", "gamma"))
    config: Config = {
        "audio_model": "dit1.0",
        "io_channels": channels,
        "input_concat_dim": shapes["transformer.project_in.weight"][1] - channels,
        "embed_dim": width,
        "global_cond_dim": shapes["to_global_embed.0.weight"][1],
        "cond_token_dim": text,
        "project_cond_tokens": inner != text,
        "num_heads": width // (norm or root_norm or (HEAD,))[0],
        "depth": count_blocks(shapes, "transformer.layers.{}."),
        "timestep_features_type": "learned" if "timestep_features.weight" in shapes else "expo",
    }
    if "transformer.memory_tokens" in shapes:
        config["num_memory_tokens"] = shapes["transformer.memory_tokens"][0]
    if norm is not None:
        config["attn_kwargs"] = {"qk_norm": "ln", "feat_scale": True}
    if root_norm is not None:
        rows, inner = shapes[f"{FIRST}self_attn.to_qkv.weight"]
        config |= {"norm_type": "rms_norm", "attn_kwargs": {"qk_norm": "rms", "differential": rows == 5 * inner}}
    if LOCAL in shapes:
        config["local_add_cond_dim"] = shapes[LOCAL][1]
    if SHARED in shapes:
        config |= {"global_cond_shared_embed": True, "global_cond_type": "adaLN"}
    return config


FAMILY = Family(name="Stable Audio Open 1.0, Stable Audio 3", configs=(StableAudio3, StableAudio), read_config=read_config)
