"""ControlNets for Qwen-Image: which files are such, and the networks they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.latent_formats
from comfy.dit.qwen_image import read_sizes
from comfy.families.model_errors import UnknownModelError
from comfy.families.published_weights import load_published
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource
from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel, QwenImageFunControlNetModel

WHAT = "the ControlNet"
INSTANTX_MARKS = ("controlnet_x_embedder.weight", "transformer_blocks.0.img_mlp.net.0.proj.weight")
FUN_MARKS = ("control_img_in.weight", "control_blocks.0.after_proj.weight")


def is_qwen_control(shapes: Mapping[str, Any]) -> bool:
    """Whether tensors of *shapes* are such a ControlNet."""
    return any(all(mark in shapes for mark in marks) for marks in (INSTANTX_MARKS, FUN_MARKS))


def build_qwen_control(source: WeightSource, dtype: torch.dtype, operations: Any) -> Any:
    """The network of *source*, its weights in *dtype*; ``control_settings`` says what the control around it is made with, and its kind.

    Raises ``ModelFileError``.
    """
    kept = {"dtype": dtype, "device": torch.device("meta"), "operations": operations}
    build: Any = _instantx if INSTANTX_MARKS[0] in source.shapes() else _fun
    network, settings = build(source, kept)
    network.requires_grad_(False).eval()
    load_published(network, source, dtype, WHAT)
    network.source_name = source.name
    network.control_settings = {"compression_ratio": 1, "latent_format": comfy.latent_formats.Wan21(), "extra_conds": (), **settings}
    return network


def _instantx(source: WeightSource, kept: Mapping[str, Any]) -> tuple[QwenImageControlNetModel, dict[str, Any]]:
    shapes = source.shapes()
    sizes = read_sizes({**shapes, "proj_out.weight": ()})
    if sizes is None:
        raise UnknownModelError(f"{source.name} has some tensors of a ControlNet for Qwen-Image, but not all that tell its sizes")
    mask = shapes[INSTANTX_MARKS[0]][1] - sizes["in_channels"]
    network = QwenImageControlNetModel(mask, **sizes, **kept)
    return network, {"kind": "qwen", "width": network.inner_dim, "concat_mask": mask > 0}


def _fun(source: WeightSource, kept: Mapping[str, Any]) -> tuple[QwenImageFunControlNetModel, dict[str, Any]]:
    shapes = source.shapes()
    width, features = shapes[FUN_MARKS[0]]
    head = shapes.get("control_blocks.0.attn.norm_q.weight", (128,))[0]
    blocks = count_blocks(shapes, "control_blocks.{}.")
    network = QwenImageFunControlNetModel(features, width, width // head, head, blocks, **kept)
    return network, {"kind": "qwen_fun", "width": width}
