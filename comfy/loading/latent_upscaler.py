"""Models that enlarge latents, from files, through the RAM model cache: HunyuanVideo 1.5's and LTX's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
from comfy.families.family_settings import published_settings
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.published_weights import load_published
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource
from comfy.ldm.hunyuan_video.upsampler import HunyuanVideo15SRModel
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts

WHAT = "the model that enlarges latents"
LTX_MARK = "post_upsample_res_blocks.0.conv2.bias"
Shapes = Mapping[str, tuple[int, ...]]


def load_latent_upscaler(path: str) -> Any:
    """The model of a file: a ``HunyuanVideo15SRModel``, or the patcher of one of LTX's. Blocks.

    Raises ``UnknownModelError`` for a file that holds none, ``ModelFileError`` for a damaged one.
    """
    with ModelFiles(path) as files:
        return load_parts(files, {"latent_upscaler": _UpscalerPart(files)})["latent_upscaler"]


class _UpscalerPart(Part[Any]):
    """The model of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> Any:
        source = self._files.source()
        if LTX_MARK in source.shapes():
            return _ltx_upscaler(source)
        with naming_file(source.name, WHAT):
            model = HunyuanVideo15SRModel(*read_upscaler_config(source.shapes()))
        load_published(model.model, source, model.dtype, WHAT)
        return model

    def estimate_bytes(self) -> int:
        source = self._files.source()
        return kept_bytes(source, "", _ltx_dtype() if LTX_MARK in source.shapes() else torch.float32)


def _ltx_dtype() -> torch.dtype:
    management = comfy.model_management
    return management.vae_dtype(management.vae_device(), [torch.bfloat16, torch.float32])


def _ltx_upscaler(source: WeightSource) -> Any:
    """The patcher of LTX's network in *source*. Raises ``UnknownModelError`` for one whose metadata says nothing of its sizes."""
    from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler
    from comfy.model_patcher import CoreModelPatcher

    management, settings = comfy.model_management, published_settings(source.metadata, source.name)
    if not settings:
        raise UnknownModelError(f"{source.name}: its metadata says nothing of its sizes; use the file as LTX's authors published it")
    model = LatentUpsampler.from_config(settings)
    load_published(model, source, _ltx_dtype(), WHAT)
    return CoreModelPatcher(model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())


def read_upscaler_config(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """Which of :data:`comfy.ldm.hunyuan_video.upsampler.UPSAMPLERS` a file with *shapes* is of, and its sizes.

    Raises ``UnknownModelError`` for others.
    """
    if "blocks.0.block.0.conv.weight" in shapes:
        first = shapes["in_conv.conv.weight"]
        sizes = {"in_channels": first[1], "hidden_channels": first[0], "out_channels": shapes["out_conv.conv.weight"][0]}
        return "720p", {**sizes, "num_blocks": count_blocks(shapes, "blocks.{}.")}
    if "up.0.block.0.conv1.conv.weight" in shapes:
        widths = [shapes[f"up.{stage}.block.0.conv1.conv.weight"][0] for stage in range(count_blocks(shapes, "up.{}."))]
        ends = {"z_channels": shapes["conv_in.conv.weight"][1], "out_channels": shapes["conv_out.conv.weight"][0]}
        return "1080p", {**ends, "block_out_channels": tuple(widths), "num_res_blocks": count_blocks(shapes, "up.0.block.{}.") - 1}
    raise UnknownModelError("it holds none that is supported; supported: HunyuanVideo 1.5's for 720p and 1080p, and LTX's")
