"""Models that enlarge latents, from files, through the RAM model cache: HunyuanVideo 1.5's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.published_weights import load_published
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.hunyuan_video.upsampler import HunyuanVideo15SRModel
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts

WHAT = "the model that enlarges latents"
Shapes = Mapping[str, tuple[int, ...]]


def load_latent_upscaler(path: str) -> HunyuanVideo15SRModel:
    """The model of a file. Blocks. Raises ``UnknownModelError`` for a file that holds none, ``ModelFileError`` for a damaged one."""
    with ModelFiles(path) as files:
        return load_parts(files, {"latent_upscaler": _UpscalerPart(files)})["latent_upscaler"]


class _UpscalerPart(Part[Any]):
    """The model of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> HunyuanVideo15SRModel:
        source = self._files.source()
        with naming_file(source.name, WHAT):
            model = HunyuanVideo15SRModel(*read_upscaler_config(source.shapes()))
        load_published(model.model, source, model.dtype, WHAT)
        return model

    def estimate_bytes(self) -> int:
        return kept_bytes(self._files.source(), "", torch.float32)


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
    raise UnknownModelError("it holds none that is supported; supported: HunyuanVideo 1.5's for 720p and 1080p")
