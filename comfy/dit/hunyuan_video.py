"""HunyuanVideo 1, and 1.5: text or a picture to video, and the network that adds detail to a video made larger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy import model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.hunyuan_video import latents
from comfy.ldm.hunyuan_video.names import parameter_name
from comfy.supported_models_base import BASE

HEAD, AXES, WIDENED = 128, [16, 56, 56], 4
MARK = "txt_in.individual_token_refiner.blocks.0.norm1.weight"
SEES = "vision_in.proj.0.weight"
FIRST_MARKS = ("vector_in.", "single_blocks.")  # what begins names of HunyuanVideo 1's alone
WEIGHT = ".weight"
MODULE = "diffusion_model."
# diffusers' names: those of the network as a whole, of a block, of the text refiner's block.
ONCE = {
    "x_embedder.proj": "img_in.proj",
    "time_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_embed.timestep_embedder_r.linear_1": "time_r_in.in_layer",
    "time_embed.timestep_embedder_r.linear_2": "time_r_in.out_layer",
    "context_embedder.proj_in": "txt_in.input_embedder",
    "context_embedder.time_text_embed.timestep_embedder.linear_1": "txt_in.t_embedder.in_layer",
    "context_embedder.time_text_embed.timestep_embedder.linear_2": "txt_in.t_embedder.out_layer",
    "context_embedder.time_text_embed.text_embedder.linear_1": "txt_in.c_embedder.in_layer",
    "context_embedder.time_text_embed.text_embedder.linear_2": "txt_in.c_embedder.out_layer",
    "context_embedder_2.norm": "byt5_in.layernorm",
    "context_embedder_2.linear_1": "byt5_in.fc1",
    "context_embedder_2.linear_2": "byt5_in.fc2",
    "context_embedder_2.linear_3": "byt5_in.fc3",
    "image_embedder.norm_in": "vision_in.proj.0",
    "image_embedder.linear_1": "vision_in.proj.1",
    "image_embedder.linear_2": "vision_in.proj.3",
    "image_embedder.norm_out": "vision_in.proj.4",
    "cond_type_embed": "cond_type_embedding",
    "proj_out": "final_layer.linear",
}
IN_BLOCK = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
# diffusers' names of HunyuanVideo 1 that differ: of the network as a whole, of a block of a single stream.
ONCE_IN_FIRST = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
}
IN_SINGLE = {"norm.linear": "modulation.lin", "attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm", "proj_out": "linear2"}
JOINED_IN_SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
JOINED_IN_BLOCK = {"to_{}": "img_attn", "add_{}_proj": "txt_attn"}
JOINED_IN_REFINER = {"to_{}": "self_attn"}
REFINERS = ("context_embedder.token_refiner.refiner_blocks.{}", "txt_in.individual_token_refiner.blocks.{}")
IN_REFINER = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.to_out.0": "self_attn.proj",
    "ff.net.0.proj": "mlp.0",
    "ff.net.2": "mlp.2",
    "norm_out.linear": "adaLN_modulation.1",
}
ENLARGED_CHANNELS = 98  # of the network that adds detail: noise, a picture, a video, and a mask of each


class HunyuanVideo(BASE):
    """HunyuanVideo 1: text to video, and a picture to video where its first frame is given (version 2) or stands beside (custom)."""

    unet_config: Config = {"image_model": "hunyuan_video"}
    sampling_settings = {"shift": 7.0}
    latent_format: Any = latents.HunyuanVideo
    memory_usage_factor = 1.8
    supported_inference_dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)
    text_encoder_type = "hunyuan_video"

    def inpaint_model(self) -> bool:
        """No: the model itself says what further channels are."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A flow over shifted time."""
        return model_base.ModelType.FLOW

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.HunyuanVideo

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"llama": ("text_encoders.llama.transformer.",), "clip_l": ("text_encoders.clip_l.transformer.",)}

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The network's tensors under their names in a checkpoint."""
        return {f"model.model.{name}": value for name, value in state_dict.items()}


class HunyuanVideoI2V(HunyuanVideo):
    """HunyuanVideo 1 with a picture's latent and its mask beside the noise (version 1)."""

    unet_config = {"image_model": "hunyuan_video", "in_channels": 33}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.HunyuanVideoI2V


class HunyuanVideoSkyreelsI2V(HunyuanVideo):
    """SkyReels: HunyuanVideo 1 with a picture's latent beside the noise."""

    unet_config = {"image_model": "hunyuan_video", "in_channels": 32}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.HunyuanVideoSkyreelsI2V


class HunyuanVideo15(HunyuanVideo):
    """Text to video, and a picture to video."""

    unet_config = {"image_model": "hunyuan_video", "vision_in_dim": 1152}
    latent_format: Any = latents.HunyuanVideo15
    memory_usage_factor = 4.0
    supported_inference_dtypes = BASE.supported_inference_dtypes
    text_encoder_type = "hunyuan_video_15"

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.HunyuanVideo15

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"qwen25_7b": ("text_encoders.qwen25_7b.transformer.",), "byt5_small": ("text_encoders.byt5_small.transformer.",)}


class HunyuanVideo15_SR_Distilled(HunyuanVideo15):  # noqa: N801 - ComfyUI's name
    """The network that adds detail."""

    unet_config = {"image_model": "hunyuan_video", "vision_in_dim": 1152, "in_channels": ENLARGED_CHANNELS}
    sampling_settings = {"shift": 2.0}

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.HunyuanVideo15_SR_Distilled


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of HunyuanVideo 1.5 with tensors of *shapes*, else None.

    Raises ``UnknownModelError`` for Hunyuan's other networks.
    """
    if MARK not in shapes or _is_first(shapes):
        return None
    if SEES not in shapes or any(name.startswith(FIRST_MARKS) for name in shapes):
        raise UnknownModelError("it is a network of Hunyuan's that is not supported; supported: HunyuanVideo 1 and HunyuanVideo 1.5")
    return _config_of(shapes)


def read_first_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of HunyuanVideo 1 with tensors of *shapes*, else None."""
    return _config_of(shapes) if MARK in shapes and _is_first(shapes) else None


def _is_first(shapes: Shapes) -> bool:
    has_frames = len(shapes.get("img_in.proj.weight", ())) == 2 + len(AXES)
    return has_frames and SEES not in shapes and all(any(name.startswith(mark) for name in shapes) for mark in FIRST_MARKS)


def _config_of(shapes: Shapes) -> Config:
    own = {parameter_name(key): shape for key, shape in shapes.items()}
    first, last = own["img_in.proj.weight"], own["final_layer.linear.weight"]
    width, channels, *patch = first
    if width % HEAD:
        raise ModelFileError(f"a network of {width} values per token has no known number of heads; it must be a multiple of {HEAD}")
    seen, pooled = own.get(SEES), own.get("vector_in.in_layer.weight")
    return {
        "image_model": "hunyuan_video",
        "in_channels": channels,
        "patch_size": patch,
        "out_channels": last[0] // (patch[0] * patch[1] * patch[2]),
        "vec_in_dim": None if pooled is None else pooled[1],
        "axes_dim": AXES,
        "meanflow": any(name.startswith("time_r_in.") for name in own),
        "context_in_dim": own["txt_in.input_embedder.weight"][1],
        "hidden_size": width,
        "mlp_ratio": float(WIDENED),
        "num_heads": width // HEAD,
        "depth": count_blocks(own, "double_blocks.{}."),
        "depth_single_blocks": count_blocks(own, "single_blocks.{}."),
        "theta": 256,
        "qkv_bias": True,
        "byt5": "byt5_in.fc1.weight" in own,
        "guidance_embed": any(name.startswith("guidance_in.") for name in own),
        "use_cond_type_embedding": "cond_type_embedding.weight" in own,
        "vision_in_dim": None if seen is None else seen[0],
        "meanflow_sum": seen is not None,
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs, for the ``width`` and the numbers of blocks in *config*."""
    return _places(config, ONCE)


def first_diffusers_places(config: Config) -> dict[str, Place]:
    """The same of HunyuanVideo 1."""
    places, width = _places(config, ONCE | ONCE_IN_FIRST), config["width"]
    for number in range(config["single_blocks"]):
        there, here = f"single_transformer_blocks.{number}", f"single_blocks.{number}"
        for leaf in ("weight", "bias"):
            places |= {f"{there}.{name}.{leaf}": Place(f"{here}.{part}.{leaf}") for name, part in IN_SINGLE.items()}
            for index, name in enumerate(JOINED_IN_SINGLE):
                rows = width * (WIDENED if name == "proj_mlp" else 1)
                places[f"{there}.{name}.{leaf}"] = Place(f"{here}.linear1.{leaf}", index * width, rows)
    return places


def _places(config: Config, once: Mapping[str, str]) -> dict[str, Place]:
    stacks = (("transformer_blocks.{}", "double_blocks.{}", IN_BLOCK, config["blocks"]), (*REFINERS, IN_REFINER, config["refiner_blocks"]))
    places: dict[str, Place] = {}
    for leaf in ("weight", "bias"):
        places |= {f"{name}.{leaf}": Place(f"{own}.{leaf}") for name, own in once.items()}
        places[f"norm_out.linear.{leaf}"] = Place(f"final_layer.adaLN_modulation.1.{leaf}", swapped=True)
        for theirs, own, inner, count in stacks:
            for number in range(count):
                there, here = theirs.format(number), own.format(number)
                places |= {f"{there}.{name}.{leaf}": Place(f"{here}.{part}.{leaf}") for name, part in inner.items()}
                joined = JOINED_IN_BLOCK if inner is IN_BLOCK else JOINED_IN_REFINER
                places |= _joined_places(f"{there}.attn", here, joined, leaf, config["width"])
    return places


def _joined_places(there: str, here: str, joined: Mapping[str, str], leaf: str, width: int) -> dict[str, Place]:
    """Where diffusers' separate q, k and v of one block are in the joined layers, by the *joined* table of name patterns."""
    return {
        f"{there}.{pattern.format(letter)}.{leaf}": Place(f"{here}.{attention}.qkv.{leaf}", index * width, width)
        for pattern, attention in joined.items()
        for index, letter in enumerate("qkv")
    }


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {
        "width": shapes["x_embedder.proj.weight"][0],
        "blocks": count_blocks(shapes, "transformer_blocks.{}."),
        "refiner_blocks": count_blocks(shapes, REFINERS[0] + "."),
        "single_blocks": count_blocks(shapes, "single_transformer_blocks.{}."),
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """The authors' names, which trainers write with ``transformer.`` before them."""
    names: dict[str, Target] = {}
    for key in keys:
        if key.startswith(MODULE) and key.endswith(WEIGHT):
            bare = key.removeprefix(MODULE).removesuffix(WEIGHT)
            theirs = bare.replace("_mod.lin", "_mod.linear").replace("_attn.qkv", "_attn_qkv").replace("_attn.proj", "_attn_proj")
            theirs = theirs.replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2").replace(".modulation.lin", ".modulation.linear")
            names |= dict.fromkeys((f"transformer.{theirs}", MODULE + theirs), key)
    return names


FIRST = Family(
    name="HunyuanVideo 1",
    configs=(HunyuanVideoSkyreelsI2V, HunyuanVideoI2V, HunyuanVideo),
    read_config=read_first_config,
    diffusers=DiffusersNames(
        ("context_embedder.proj_in.weight", "single_transformer_blocks.0.norm.linear.weight"), _diffusers_sizes, first_diffusers_places
    ),
    lora_names=lora_names,
)
FAMILY = Family(
    name="HunyuanVideo 1.5",
    configs=(HunyuanVideo15_SR_Distilled, HunyuanVideo15),
    read_config=read_config,
    diffusers=DiffusersNames(("cond_type_embed.weight", "context_embedder_2.linear_3.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
