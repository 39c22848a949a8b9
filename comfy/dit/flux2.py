"""Flux.2: dev and klein. Its network is Flux.1's with other settings; its latents have 128 channels, one cell for 16 × 16 pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy import latent_formats, model_base
from comfy.dit.family import Config, DiffusersNames, Family, Place, Shapes, Target
from comfy.dit.flux import Flux, target_of
from comfy.dit.flux import diffusers_places as flux_places
from comfy.dit.flux import lora_names as flux_lora_names
from comfy.families.sd_unet_config import count_blocks
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.flux2 import flux2_target

AXES = (32, 32, 32, 32)
MARK = "double_stream_modulation_img.lin.weight"
WIDTH_OF_FACTOR = 2604  # the memory factor grows with the width; this one has Flux.1's
PARTS = ("qwen3_4b", "qwen3_8b", "mistral3_24b")
OUTSIDE_NAMES = {
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
}


class Flux2(Flux):
    """Flux.2 of any size."""

    unet_config = {"image_model": "flux2"}
    sampling_settings = {"shift": 2.02}
    latent_format: Any = latent_formats.Flux2
    text_encoder_type = "flux2"

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(unet_config, settings)
        self.memory_usage_factor = self.memory_usage_factor * 4 * (self.unet_config["hidden_size"] / WIDTH_OF_FACTOR)

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Flux2

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {part: (f"text_encoders.{part}.transformer.",) for part in PARTS}

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> ClipTarget:
        """Of the one text model that the checkpoint holds: Qwen 3 for klein, Mistral for dev, and where there is none."""
        keys = state_dict or {}
        held = [part for part, (prefix,) in self.text_encoder_parts().items() if any(key.startswith(prefix) for key in keys)]
        return flux2_target(held[:1] or PARTS[-1:])


def read_config(shapes: Shapes) -> Config | None:
    """The ``unet_config`` of a Flux.2 network with tensors of *shapes*, else None."""
    if MARK not in shapes or "img_in.weight" not in shapes:
        return None
    width, channels = shapes["img_in.weight"]
    return {
        "image_model": "flux2",
        "in_channels": channels,
        "out_channels": 128,
        "vec_in_dim": None,
        "context_in_dim": shapes["txt_in.weight"][1],
        "hidden_size": width,
        "mlp_ratio": 3.0,
        "num_heads": width // sum(AXES),
        "depth": count_blocks(shapes, "double_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_blocks.{}."),
        "axes_dim": list(AXES),
        "theta": 2000,
        "patch_size": 1,
        "qkv_bias": False,
        "ops_bias": False,
        "global_modulation": True,
        "mlp_silu_act": True,
        "guidance_embed": "guidance_in.in_layer.weight" in shapes,
        "txt_ids_dims": [3],
        "ref_index_scale": 10.0,
        "default_ref_method": "index",
    }


def diffusers_places(config: Config) -> dict[str, Place]:
    """Where every tensor in diffusers' names belongs: Flux.1's places, and the embeddings and modulations that all blocks share."""
    return flux_places(config) | {f"{name}.weight": Place(f"{own}.weight") for name, own in OUTSIDE_NAMES.items()}


def _diffusers_sizes(shapes: Shapes) -> Config:
    return {
        "hidden_size": shapes["x_embedder.weight"][0],
        "depth": count_blocks(shapes, "transformer_blocks.{}."),
        "depth_single_blocks": count_blocks(shapes, "single_transformer_blocks.{}."),
    }


def lora_names(config: Config, keys: Iterable[str]) -> dict[str, Target]:
    """As for Flux.1, and the names of what all blocks share."""
    names = dict(flux_lora_names(config, keys))
    for name, own in OUTSIDE_NAMES.items():
        flat = name.replace(".", "_")
        target = target_of(Place(f"{own}.weight"))
        names |= dict.fromkeys((f"transformer.{name}", f"lycoris_{flat}", f"lora_transformer_{flat}", name), target)
    return names


FAMILY = Family(
    name="Flux.2",
    configs=(Flux2,),
    read_config=read_config,
    diffusers=DiffusersNames(("x_embedder.weight", "double_stream_modulation_img.linear.weight"), _diffusers_sizes, diffusers_places),
    lora_names=lora_names,
)
