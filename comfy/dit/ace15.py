"""ACE-Step 1.5: music from tags and lyrics (base, supervised, turbo, and the larger ones)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, Family, Place, Shapes, Target
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

HEAD = 128
MARK = "encoder.lyric_encoder.layers.0.input_layernorm.weight"
WEIGHT = ".weight"
MODULE = "diffusion_model.decoder."
# diffusers' names, of the diffusion model proper alone.
ONCE = {"proj_in_conv": "proj_in.1", "proj_out_conv": "proj_out.1", "condition_embedder": "condition_embedder"}
TIMES = tuple(f"{name}.{layer}" for name in ("time_embed", "time_embed_r") for layer in ("linear_1", "linear_2", "time_proj"))
IN_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "o_proj", "norm_q": "q_norm", "norm_k": "k_norm"}


class ACEStep15(BASE):
    """The one kind."""

    unet_config = {"audio_model": "ace1.5"}
    sampling_settings = {"multiplier": 1.0, "shift": 3.0}
    latent_format: Any = latent_formats.ACEAudio15
    memory_usage_factor = 4.7
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
        return model_base.ACEStep15

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {name: (f"text_encoders.{name}.transformer.",) for name in ("qwen3_06b", "qwen3_2b", "qwen3_4b")}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None. Raises ``ModelFileError`` for one without heads of 128."""
    if MARK not in shapes:
        return None
    own, encoder = "decoder.layers.0.", "encoder.lyric_encoder.layers.0."
    queries, keys = (shapes[f"{own}self_attn.{name}_proj.weight"][0] for name in "qk")
    if not keys or keys % HEAD or queries % keys:
        raise ModelFileError(
            f"queries of {queries} and keys of {keys} values have no known number of heads; both must be multiples of {HEAD}"
        )
    hidden, channels, patch = shapes["decoder.proj_in.1.weight"]
    return {
        "audio_model": "ace1.5",
        "in_channels": channels,
        "hidden_size": hidden,
        "text_hidden_dim": shapes["encoder.text_projector.weight"][1],
        "timbre_hidden_dim": shapes["encoder.timbre_encoder.embed_tokens.weight"][1],
        "audio_acoustic_hidden_dim": shapes["decoder.proj_out.1.weight"][1],
        "num_dit_layers": count_blocks(shapes, "decoder.layers.{}."),
        "num_lyric_layers": count_blocks(shapes, "encoder.lyric_encoder.layers.{}."),
        "num_timbre_layers": count_blocks(shapes, "encoder.timbre_encoder.layers.{}."),
        "num_tokenizer_layers": count_blocks(shapes, "tokenizer.attention_pooler.layers.{}."),
        "num_detokenizer_layers": count_blocks(shapes, "detokenizer.layers.{}."),
        "num_heads": queries // HEAD,
        "num_kv_heads": keys // HEAD,
        "intermediate_size": shapes[f"{own}mlp.gate_proj.weight"][0],
        "patch_size": patch,
        "pool_window_size": shapes["detokenizer.special_tokens"][1],
        "fsq_dim": shapes["tokenizer.quantizer.project_in.weight"][1],
        "encoder_hidden_size": shapes[MARK][0],
        "encoder_num_heads": shapes[f"{encoder}self_attn.q_proj.weight"][0] // HEAD,
        "encoder_intermediate_size": shapes[f"{encoder}mlp.gate_proj.weight"][0],
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor of the diffusion model proper in diffusers' names belongs, for the number of blocks in *config*."""
    places: dict[str, Place] = {}
    for leaf in ("weight", "bias"):
        places |= {f"{name}.{leaf}": Place(f"decoder.{own}.{leaf}") for name, own in ({name: name for name in TIMES} | ONCE).items()}
    places |= {name: Place(f"decoder.{name}") for name in ("norm_out.weight", "scale_shift_table")}
    for number in range(config["num_dit_layers"]):
        block = f"layers.{number}"
        for attention in ("self_attn", "cross_attn"):
            here = f"{block}.{attention}"
            places |= {f"{here}.{name}.weight": Place(f"decoder.{here}.{own}.weight") for name, own in IN_ATTENTION.items()}
            places[f"{here}_norm.weight"] = Place(f"decoder.{here}_norm.weight")
        same = ("mlp_norm.weight", "scale_shift_table", *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")))
        places |= {f"{block}.{name}": Place(f"decoder.{block}.{name}") for name in same}
    return places


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """Names without ``decoder.``, as the authors' trainer and LyCORIS write them, and diffusers'."""
    known = {key.removeprefix(MODULE).removesuffix(WEIGHT): key for key in keys if key.startswith(MODULE) and key.endswith(WEIGHT)}
    names: dict[str, Target] = {}
    for bare, key in known.items():
        names |= {f"base_model.model.{bare}": key, f"lycoris_{bare.replace('.', '_')}": key}
    for name, place in diffusers_places(config).items():
        bare = place.key.removeprefix("decoder.").removesuffix(WEIGHT)
        if name.endswith(WEIGHT) and bare in known:
            names[f"transformer.{name.removesuffix(WEIGHT)}"] = known[bare]
    return names


FAMILY = Family(name="ACE-Step 1.5", configs=(ACEStep15,), read_config=read_config, lora_names=lora_names)
