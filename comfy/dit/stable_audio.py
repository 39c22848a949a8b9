"""Stable Audio Open 1.0 and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Shapes
from comfy.families.model_errors import UnknownModelError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 64
MARK = "transformer.rotary_pos_emb.inv_freq"
FIRST = "transformer.layers.0."
OF_THE_THIRD = ("transformer.global_cond_embedder.0.weight", f"{FIRST}to_local_embed.0.weight", f"{FIRST}self_attn.q_norm.gamma")


class StableAudio(BASE):
    """Text to sound."""

    unet_config = {"audio_model": "dit1.0"}
    sampling_settings = {"sigma_max": 500.0, "sigma_min": 0.03}
    latent_format: Any = latent_formats.StableAudio1
    vae_key_prefix = ("pretransform.model.",)
    text_encoder_key_prefix = ("text_encoders.",)
    further_key_prefixes = ("conditioner.conditioners.seconds_",)
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


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None. Raises ``UnknownModelError`` for Stable Audio 3."""
    if MARK not in shapes:
        return None
    if any(name in shapes for name in OF_THE_THIRD) or "timestep_features.weight" not in shapes:
        raise UnknownModelError("it is a network of Stable Audio's that is not supported; supported: Stable Audio Open 1.0")
    width, channels = shapes["to_timestep_embed.0.weight"][0], shapes["postprocess_conv.weight"][0]
    inner, text = shapes["to_cond_embed.0.weight"]
    norm = shapes.get(f"{FIRST}self_attn.q_norm.weight")
    config: Config = {
        "audio_model": "dit1.0",
        "io_channels": channels,
        "input_concat_dim": shapes["transformer.project_in.weight"][1] - channels,
        "embed_dim": width,
        "global_cond_dim": shapes["to_global_embed.0.weight"][1],
        "cond_token_dim": text,
        "project_cond_tokens": inner != text,
        "num_heads": width // (HEAD if norm is None else norm[0]),
        "depth": count_blocks(shapes, "transformer.layers.{}."),
        "timestep_features_type": "learned",
    }
    if "transformer.memory_tokens" in shapes:
        config["num_memory_tokens"] = shapes["transformer.memory_tokens"][0]
    if norm is not None:
        config["attn_kwargs"] = {"qk_norm": "ln", "feat_scale": True}
    return config


FAMILY = Family(name="Stable Audio Open 1.0", configs=(StableAudio,), read_config=read_config)
