"""ControlNets for Stable Diffusion 3.5: their files, and what they borrow from the sampled model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

import comfy.latent_formats
from comfy.cldm.dit_embedder import ControlNetEmbedder
from comfy.dit.sd3 import HEAD, OUTSIDE_NAMES
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.published_weights import load_published
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource

WHAT = "the ControlNet"
KIND = "control_type"
MARKS = ("pos_embed_input.proj.weight", "transformer_blocks.0.adaLN_modulation.1.bias")
Preparation = Callable[[torch.Tensor], torch.Tensor]


def _edges(picture: torch.Tensor) -> torch.Tensor:
    return picture * 255 * 0.5 + 0.5


def _depth(picture: torch.Tensor) -> torch.Tensor:
    return 1.0 - picture


PREPARATIONS: Mapping[int, Preparation] = {1: _edges, 2: _depth}  # of blurred pictures, kind 0, none


def is_sd35_control(shapes: Mapping[str, Any]) -> bool:
    """Whether tensors of *shapes* are such a ControlNet."""
    return all(mark in shapes for mark in MARKS)


def build_sd35_control(source: WeightSource, dtype: torch.dtype, operations: Any) -> ControlNetEmbedder:
    """The network of *source*, its weights in *dtype*; ``control_settings`` says how its hint is prepared. Raises ``ModelFileError``."""
    shapes = source.shapes()
    named = {f"{name}.{leaf}": f"{own}.{leaf}" for name, own in OUTSIDE_NAMES.items() for leaf in ("weight", "bias")}
    names = {named.get(key, key): key for key in shapes if key != KIND}
    part = RenamedSource(source, names, {name: shapes[key] for name, key in names.items()})
    width, pooled = part.shapes()["y_embedder.mlp.0.weight"]
    patch = part.shapes()["pos_embed_input.proj.weight"]
    network = ControlNetEmbedder(
        num_layers=count_blocks(shapes, "transformer_blocks.{}."),
        main_model_double=width // HEAD,
        num_attention_heads=width // HEAD,
        attention_head_dim=HEAD,
        patch_size=patch[2],
        in_chans=patch[1],
        double_y_emb=width == pooled,
        adm_in_channels=pooled,
        operations=operations,
        dtype=dtype,
        device=torch.device("meta"),
    )
    network.requires_grad_(False).eval()
    load_published(network, part, dtype, WHAT)
    kind = round(source.take([KIND], None)[KIND].float().item()) if KIND in shapes else -1
    network.control_settings = {
        "kind": "sd35",
        "compression_ratio": 1,
        "latent_format": comfy.latent_formats.SD3(),
        "preprocess_image": PREPARATIONS.get(kind),
        "borrowed": "y_embedder" if network.double_y_emb else "x_embedder",
    }
    return network
