"""LTX-Video 0.9 (videos) and LTX 2 (videos with sound). Much of their sizes is said in the metadata of their files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.family_settings import part_settings
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import BASE

log = logging.getLogger(__name__)

HEADS = 32  # unless a file says otherwise
WEIGHT = ".weight"
MODULE = "diffusion_model."
MARK = "adaln_single.emb.timestep_embedder.linear_1.bias"
SOUND = "audio_adaln_single.linear.weight"
MARKERS = "keyframes_abs_pos_embedding"
USUAL_TEXT = 2048  # values per token of the text, for which the usual memory is needed
# Members of the published configuration that the network is built by.
USED = frozenset(
    "in_channels cross_attention_dim attention_head_dim num_attention_heads caption_channels num_layers positional_embedding_theta "
    "positional_embedding_max_pos causal_temporal_positioning vae_scale_factors use_middle_indices_grid timestep_scale_multiplier "
    "caption_proj_before_connector cross_attention_adaln caption_projection_first_linear ff_bias use_prompt_adaln_single rope_type "
    "frequencies_precision audio_in_channels audio_cross_attention_dim audio_attention_head_dim audio_num_attention_heads "
    "audio_positional_embedding_max_pos av_ca_timestep_scale_multiplier apply_gated_attention audio_ff_bias "
    "connector_apply_gated_attention connector_attention_head_dim connector_num_attention_heads connector_num_layers "
    "audio_connector_attention_head_dim audio_connector_num_attention_heads".split()
)
# Members that say what is so for all of these networks, or how they were trained.
FIXED = frozenset(
    "_class_name _diffusers_version _name_or_path activation_fn adaptive_norm attention_bias attention_type audio_out_channels "
    "av_cross_ada_norm caption_projection_second_linear cross_attention_norm double_self_attention dropout norm_elementwise_affine "
    "norm_eps norm_num_groups num_embeds_ada_norm num_vector_embeds "
    "only_cross_attention out_channels positional_embedding_type project_to_2d_pos "
    "qk_norm sample_size share_ff skip_final_projection standardization_norm upcast_attention use_audio_video_cross_attention "
    "use_embeddings_connector use_linear_projection use_tpu_flash_attention connector_positional_embedding_max_pos "
    "connector_num_learnable_registers connector_norm_output connector_learnable_registers connector_rope_type connector_use_rope "
    "text_encoder_norm_type".split()
)
# With what diffusers' names begin, and the published ones; and parts of attention. All others are the same.
DIFFUSERS = {
    "proj_in.": "patchify_proj.",
    "time_embed.": "adaln_single.",
    "audio_proj_in.": "audio_patchify_proj.",
    "audio_time_embed.": "audio_adaln_single.",
    "av_cross_attn_video_scale_shift.": "av_ca_video_scale_shift_adaln_single.",
    "av_cross_attn_video_a2v_gate.": "av_ca_a2v_gate_adaln_single.",
    "av_cross_attn_audio_scale_shift.": "av_ca_audio_scale_shift_adaln_single.",
    "av_cross_attn_audio_v2a_gate.": "av_ca_v2a_gate_adaln_single.",
}
IN_BLOCK = {
    ".norm_q.": ".q_norm.",
    ".norm_k.": ".k_norm.",
    ".video_a2v_cross_attn_scale_shift_table": ".scale_shift_table_a2v_ca_video",
    ".audio_a2v_cross_attn_scale_shift_table": ".scale_shift_table_a2v_ca_audio",
}


class LTXV(BASE):
    """LTX-Video 0.9 of any size."""

    unet_config = {"image_model": "ltxv"}
    sampling_settings = {"shift": 2.37}
    latent_format: Any = latent_formats.LTXV
    memory_usage_factor = 5.5
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type: str | None = "ltxv"

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(unet_config, settings)
        self.memory_usage_factor = self.unet_config.get("cross_attention_dim", USUAL_TEXT) / USUAL_TEXT * 5.5

    def inpaint_model(self) -> bool:
        """No: pictures stand in the latent itself."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLUX

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.LTXV

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"t5xxl": ("text_encoders.t5xxl.transformer.",)}


class LTXAV(LTXV):
    """LTX 2 of any size. Its text encoder is in a file of its own."""

    unet_config = {"image_model": "ltxav"}
    latent_format: Any = latent_formats.LTXAV

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(unet_config, settings)
        self.memory_usage_factor = 0.077  # per number of the flat latent of video and sound

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.LTXAV

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of one of LTX's networks with tensors of *shapes*, else None."""
    if MARK not in shapes:
        return None
    width, text = shapes["transformer_blocks.0.attn2.to_k.weight"]
    config: Config = {
        "image_model": "ltxav" if SOUND in shapes else "ltxv",
        "num_layers": count_blocks(shapes, "transformer_blocks.{}."),
        "attention_head_dim": width // HEADS,
        "cross_attention_dim": text,
        "in_channels": shapes["patchify_proj.weight"][1],
        "use_keyframes_abs_pos_embedding": MARKERS in shapes,
    }
    if "caption_projection.linear_1.weight" in shapes:
        config["caption_channels"] = shapes["caption_projection.linear_1.weight"][1]
    if SOUND in shapes:
        config |= _sound(shapes)
    return config


def _sound(shapes: Shapes) -> Config:
    width, text = shapes["transformer_blocks.0.audio_attn2.to_k.weight"]
    return {
        "audio_in_channels": shapes["audio_patchify_proj.weight"][1],
        "audio_attention_head_dim": width // HEADS,
        "audio_cross_attention_dim": text,
        "cross_attention_adaln": "transformer_blocks.0.prompt_scale_shift_table" in shapes,
        "apply_gated_attention": "transformer_blocks.0.attn1.to_gate_logits.weight" in shapes,
        "connector_num_layers": count_blocks(shapes, "video_embeddings_connector.transformer_1d_blocks.{}."),
        "connector_apply_gated_attention": "video_embeddings_connector.transformer_1d_blocks.0.attn1.to_gate_logits.weight" in shapes,
    }


def with_metadata(config: Config, metadata: Mapping[str, str], name: str = "the file") -> Config:
    """*config* with what the file's metadata says of the transformer, which counts before the shapes.

    Raises ``ModelFileError`` where that is not understood. Members that nothing here knows are named in the log.
    """
    settings = part_settings(metadata, "transformer", name)
    unknown = sorted(settings.keys() - USED - FIXED)
    if unknown:
        log.warning("%s: %d settings of the transformer in its metadata are not used: %s", name, len(unknown), ", ".join(unknown))
    return {**config, **{key: value for key, value in settings.items() if key in USED}}


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """Each weight by its bare name."""
    weights = (key for key in keys if key.startswith(MODULE) and key.endswith(WEIGHT))
    return {key.removeprefix(MODULE).removesuffix(WEIGHT): key for key in weights}


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs; *config* holds their names as ``names``."""
    return {name: Place(_published(name)) for name in config["names"]}


def _published(name: str) -> str:
    for theirs, own in DIFFUSERS.items():
        if name.startswith(theirs):
            return own + name.removeprefix(theirs)
    for theirs, own in IN_BLOCK.items():
        name = name.replace(theirs, own)
    return name


FAMILY = Family(
    name="LTX-Video and LTX 2",
    configs=(LTXAV, LTXV),
    read_config=read_config,
    diffusers=DiffusersNames(
        ("proj_in.weight", "time_embed.emb.timestep_embedder.linear_1.weight", "caption_projection.linear_1.weight"),
        lambda shapes: {"names": list(shapes)},
        diffusers_places,
    ),
    lora_names=lora_names,
    with_metadata=with_metadata,
)
