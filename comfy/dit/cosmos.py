"""Cosmos 1, Cosmos-Predict2, and Anima, which puts an adapter for its text before the latter's network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.cosmos import latents
from comfy.supported_models_base import BASE

PATCH = 2
HEAD = 128
VIDEO_CHANNELS = 17  # the latent's and a mask of the frames that are given
USUAL_WIDTH, USUAL_FACTOR, HALF_FACTOR = 2048, 0.95, 1.4
MARK = "blocks.0.mlp.layer1.weight"
ADAPTER = "llm_adapter."
# By the channels that come in and the width: how far rows, columns and frames are stretched.
PICTURE_RATIOS, VIDEO_RATIOS, WIDE_VIDEO_RATIOS = (4.0, 4.0, 1.0), (3.0, 3.0, 1.0), (2.0, 2.0, 0.8333333333333334)
WIDE = 5120
FIRST_MARK = "blocks.block0.blocks.0.block.attn.to_q.0.weight"
FIRST_RATIOS, FIRST_WIDE_RATIOS = (1.0, 1.0, 2.0), (2.0, 2.0, 2.0)  # of Cosmos 1 with 7 and 14 billion weights


OUTSIDE_NAMES = {
    "patch_embed.proj": "x_embedder.proj.1",
    "time_embed.t_embedder.linear_1": "t_embedder.1.linear_1",
    "time_embed.t_embedder.linear_2": "t_embedder.1.linear_2",
    "time_embed.norm": "t_embedding_norm",
    "norm_out.linear_1": "final_layer.adaln_modulation.1",
    "norm_out.linear_2": "final_layer.adaln_modulation.2",
    "proj_out": "final_layer.linear",
}
ATTENTION_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out.0": "output_proj", "norm_q": "q_norm", "norm_k": "k_norm"}
BLOCK_NAMES = {
    **{f"attn1.{name}": f"self_attn.{own}" for name, own in ATTENTION_NAMES.items()},
    **{f"attn2.{name}": f"cross_attn.{own}" for name, own in ATTENTION_NAMES.items()},
    **{
        f"norm{number}.linear_{layer}": f"adaln_modulation_{step}.{layer}"
        for number, step in enumerate(("self_attn", "cross_attn", "mlp"), 1)
        for layer in (1, 2)
    },
    "ff.net.0.proj": "mlp.layer1",
    "ff.net.2": "mlp.layer2",
}
# What differs in Cosmos 1.
FIRST_OUTSIDE_NAMES = {
    **{name: OUTSIDE_NAMES[name] for name in ("patch_embed.proj", "proj_out")},
    **{name: OUTSIDE_NAMES[name] for name in ("time_embed.t_embedder.linear_1", "time_embed.t_embedder.linear_2")},
    "time_embed.norm": "affline_norm",
    "norm_out.linear_1": "final_layer.adaLN_modulation.1",
    "norm_out.linear_2": "final_layer.adaLN_modulation.2",
}
FIRST_ATTENTION_NAMES = {
    "to_q": "to_q.0",
    "to_k": "to_k.0",
    "to_v": "to_v.0",
    "to_out.0": "to_out.0",
    "norm_q": "to_q.1",
    "norm_k": "to_k.1",
}
FIRST_BLOCK_NAMES = {
    **{f"attn{number}.{name}": f"blocks.{number - 1}.block.attn.{own}" for number in (1, 2) for name, own in FIRST_ATTENTION_NAMES.items()},
    **{f"norm{number}.linear_{layer}": f"blocks.{number - 1}.adaLN_modulation.{layer}" for number in (1, 2, 3) for layer in (1, 2)},
    "ff.net.0.proj": "blocks.2.block.layer1",
    "ff.net.2": "blocks.2.block.layer2",
}


class CosmosT2V(BASE):
    """Cosmos 1: text to video."""

    unet_config = {"image_model": "cosmos", "in_channels": 16}
    sampling_settings = {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}
    latent_format: Any = latents.Cosmos1CV8x8x8
    memory_usage_factor = 1.6
    supported_inference_dtypes = (torch.bfloat16, torch.float16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "cosmos"

    def inpaint_model(self) -> bool:
        """No: the channel beside the latent's says which frames are given."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """The denoised latent, over continuous levels."""
        return model_base.ModelType.EDM

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.CosmosVideo

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"t5xxl": ("text_encoders.t5xxl.transformer.",)}


class CosmosI2V(CosmosT2V):
    """Cosmos 1: frames to video."""

    unet_config = {"image_model": "cosmos", "in_channels": VIDEO_CHANNELS}


class CosmosT2IPredict2(BASE):
    """Cosmos-Predict2: text to picture."""

    unet_config = {"image_model": "cosmos_predict2", "in_channels": 16}
    sampling_settings = {"sigma_data": 1.0, "sigma_max": 80.0, "sigma_min": 0.002}
    latent_format: Any = latent_formats.Wan21
    supported_inference_dtypes = (torch.bfloat16, torch.float16, torch.float32)
    text_encoder_type = "cosmos"

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(unet_config, settings)
        self.memory_usage_factor = self.unet_config.get("model_channels", USUAL_WIDTH) / USUAL_WIDTH * USUAL_FACTOR

    def inpaint_model(self) -> bool:
        """No: the channel beside the latent's says which frames are given."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """Cosmos's own flow."""
        return model_base.ModelType.FLOW_COSMOS

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.CosmosPredict2

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"t5xxl": ("cond_stage_model.t5xxl.transformer.",)}


class CosmosI2VPredict2(CosmosT2IPredict2):
    """Cosmos-Predict2: frames to video."""

    unet_config = {"image_model": "cosmos_predict2", "in_channels": VIDEO_CHANNELS}


class Anima(CosmosT2IPredict2):
    """Anima."""

    unet_config = {"image_model": "anima"}
    sampling_settings = {"multiplier": 1.0, "shift": 3.0}
    text_encoder_type = "stable_diffusion"

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Anima

    def set_inference_dtype(self, dtype: torch.dtype, manual_cast_dtype: torch.dtype | None, device: Any = None) -> None:
        """Half precision takes more memory: the sums of the blocks are kept in single."""
        super().set_inference_dtype(dtype, manual_cast_dtype, device)
        if dtype == torch.float16:
            self.memory_usage_factor *= HALF_FACTOR

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen3_06b": ("cond_stage_model.qwen3_06b.transformer.",)}


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of such a network with tensors of *shapes*, else None."""
    if MARK not in shapes or "x_embedder.proj.1.weight" not in shapes:
        return None
    width, values = shapes["x_embedder.proj.1.weight"]
    channels = values // PATCH**2 - 1  # one marks padding
    is_video = channels == VIDEO_CHANNELS
    rows, columns, frames = WIDE_VIDEO_RATIOS if is_video and width == WIDE else VIDEO_RATIOS if is_video else PICTURE_RATIOS
    config: Config = {
        "image_model": "anima" if f"{ADAPTER}blocks.0.cross_attn.q_proj.weight" in shapes else "cosmos_predict2",
        "max_img_h": 240,
        "max_img_w": 240,
        "max_frames": 128,
        "in_channels": channels,
        "out_channels": 16,
        "patch_spatial": PATCH,
        "patch_temporal": 1,
        "model_channels": width,
        "concat_padding_mask": True,
        "crossattn_emb_channels": shapes["blocks.0.cross_attn.k_proj.weight"][1],
        "pos_emb_cls": "rope3d",
        "pos_emb_learnable": True,
        "pos_emb_interpolation": "crop",
        "min_fps": 1,
        "max_fps": 30,
        "use_adaln_lora": True,
        "adaln_lora_dim": shapes["blocks.0.adaln_modulation_mlp.1.weight"][0],
        "num_blocks": count_blocks(shapes, "blocks.{}."),
        "num_heads": width // HEAD,
        "rope_h_extrapolation_ratio": rows,
        "rope_w_extrapolation_ratio": columns,
        "rope_t_extrapolation_ratio": frames,
        "rope_enable_fps_modulation": False,
    }
    return config | (_adapter(shapes) if config["image_model"] == "anima" else {})


def read_first_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Cosmos 1 with tensors of *shapes*, else None."""
    if FIRST_MARK not in shapes or "x_embedder.proj.1.weight" not in shapes:
        return None
    width, values = shapes["x_embedder.proj.1.weight"]
    rows, columns, frames = FIRST_WIDE_RATIOS if width >= WIDE else FIRST_RATIOS
    config: Config = {
        "image_model": "cosmos",
        "max_img_h": shapes["extra_pos_embedder.pos_emb_h"][0] * PATCH,
        "max_img_w": shapes["extra_pos_embedder.pos_emb_w"][0] * PATCH,
        "max_frames": shapes["extra_pos_embedder.pos_emb_t"][0],
        "in_channels": values // PATCH**2 - 1,  # one marks padding
        "out_channels": 16,
        "patch_spatial": PATCH,
        "patch_temporal": 1,
        "model_channels": width,
        "block_config": "FA-CA-MLP",
        "concat_padding_mask": True,
        "crossattn_emb_channels": shapes["blocks.block0.blocks.1.block.attn.to_k.0.weight"][1],
        "pos_emb_cls": "rope3d",
        "pos_emb_learnable": False,
        "pos_emb_interpolation": "crop",
        "block_x_format": "THWBD",
        "affline_emb_norm": True,
        "use_adaln_lora": True,
        "adaln_lora_dim": shapes["blocks.block0.blocks.0.adaLN_modulation.1.weight"][0],
        "num_blocks": count_blocks(shapes, "blocks.block{}."),
        "num_heads": width // shapes["blocks.block0.blocks.0.block.attn.to_q.1.weight"][0],
        "extra_per_block_abs_pos_emb": True,
        "extra_per_block_abs_pos_emb_type": "learnable",
        "rope_h_extrapolation_ratio": rows,
        "rope_w_extrapolation_ratio": columns,
        "rope_t_extrapolation_ratio": frames,
    }
    return config


def _adapter(shapes: Shapes) -> Config:
    """The sizes of the adapter, where they are not the published ones."""
    first = f"{ADAPTER}blocks.0."
    vocabulary, target = shapes[f"{ADAPTER}embed.weight"]
    width, head = shapes[f"{first}mlp.2.weight"][0], shapes[f"{first}cross_attn.q_norm.weight"][0]
    sizes = {
        "source_dim": shapes[f"{first}cross_attn.k_proj.weight"][1],
        "target_dim": target,
        "model_dim": width,
        "num_layers": count_blocks(shapes, ADAPTER + "blocks.{}."),
        "num_heads": width // head,
        "vocabulary": vocabulary,
    }
    usual = {"source_dim": 1024, "target_dim": 1024, "model_dim": 1024, "num_layers": 6, "num_heads": 16, "vocabulary": 32128}
    return {} if sizes == usual else {"llm_adapter_config": sizes}


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs, for the ``num_blocks`` of *config*."""
    places = {f"{name}.weight": Place(f"{own}.weight") for name, own in OUTSIDE_NAMES.items()}
    for number in range(config["num_blocks"]):
        block = {f"transformer_blocks.{number}.{name}.weight": f"blocks.{number}.{own}.weight" for name, own in BLOCK_NAMES.items()}
        places |= {name: Place(own) for name, own in block.items()}
    return places


def first_diffusers_places(config: Config) -> dict[str, Place]:
    """The same of Cosmos 1."""
    places = {f"{name}.weight": Place(f"{own}.weight") for name, own in FIRST_OUTSIDE_NAMES.items()}
    places |= {f"learnable_pos_embed.pos_emb_{axis}": Place(f"extra_pos_embedder.pos_emb_{axis}") for axis in "thw"}
    for number in range(config["num_blocks"]):
        there, here = f"transformer_blocks.{number}", f"blocks.block{number}"
        places |= {f"{there}.{name}.weight": Place(f"{here}.{own}.weight") for name, own in FIRST_BLOCK_NAMES.items()}
    return places


def first_lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """diffusers' names of Cosmos 1's weights, with ``transformer.`` before them."""
    known = set(keys)
    places = {name.removesuffix(".weight"): f"diffusion_model.{place.key}" for name, place in first_diffusers_places(config).items()}
    return {f"transformer.{name}": key for name, key in places.items() if key in known}


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {"num_blocks": count_blocks(shapes, "transformer_blocks.{}.")}


FIRST = Family(
    name="Cosmos 1",
    configs=(CosmosT2V, CosmosI2V),
    read_config=read_first_config,
    diffusers=DiffusersNames(
        ("time_embed.t_embedder.linear_1.weight", "learnable_pos_embed.pos_emb_t"), _diffusers_sizes, first_diffusers_places
    ),
    lora_names=first_lora_names,
)
FAMILY = Family(
    name="Cosmos-Predict2 and Anima",
    configs=(Anima, CosmosT2IPredict2, CosmosI2VPredict2),
    read_config=read_config,
    diffusers=DiffusersNames(("time_embed.t_embedder.linear_1.weight", "patch_embed.proj.weight"), _diffusers_sizes, diffusers_places),
)
