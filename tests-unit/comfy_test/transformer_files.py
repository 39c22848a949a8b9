"""Small files of transformer families with random weights in the published names."""

import functools
import math

import torch
from safetensors.torch import save_file

from comfy.dit.registry import read_transformer_config
from comfy.supported_models import models


def random_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A float32 value: matrices normal by fan-in, scales around one, biases small."""
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) * math.prod(shape[1:]) ** -0.5
    values = torch.randn(shape, generator=generator) * 0.1
    return 1 + values if name.endswith(("scale", "weight")) else values


def network_of(config: dict):
    """The network of the ``unet_config`` *config*, without values."""
    kind = next(one for one in models if one.matches(config))
    return kind(config).get_model({}, device=torch.device("cpu")).diffusion_model


def random_tensors(config: dict, seed: int = 0, dtype: torch.dtype = torch.float32, file_name=lambda name: name) -> dict[str, torch.Tensor]:
    """Values for all parameters of that network, under *file_name* of theirs."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {file_name(name): tuple(value.shape) for name, value in network_of(config).named_parameters()}
    return {name: random_weight(name, shape, generator).to(dtype) for name, shape in shapes.items()}


def flux_config(
    *, in_channels: int = 16, guidance: bool = True, width: int = 256, depth: int = 2, single: int = 3, context: int = 64, vector: int = 32
) -> dict:
    """The ``unet_config`` of a small Flux.1; heads have their 128 channels."""
    shapes = {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "img_in.weight": (width, in_channels * 4),
        "txt_in.weight": (width, context),
        "vector_in.in_layer.weight": (width, vector),
        **({"guidance_in.in_layer.weight": (width, 256)} if guidance else {}),
        **{f"double_blocks.{number}.": () for number in range(depth)},
        **{f"single_blocks.{number}.": () for number in range(single)},
    }
    config = read_transformer_config(shapes)
    assert config is not None
    return config


def flux_file_name(name: str) -> str:
    """The published name of a parameter: the authors say ``scale`` for a norm's weight."""
    return f"{name.removesuffix('.weight')}.scale" if name.endswith("_norm.weight") else name


def flux_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Flux.1 in the authors' names."""
    return random_tensors(flux_config(**sizes), seed, dtype, flux_file_name)


@functools.cache
def _flux_file(path: str, seed: int, dtype: torch.dtype, prefix: str, sizes: tuple) -> str:
    save_file({prefix + name: value for name, value in flux_tensors(seed, dtype, **dict(sizes)).items()}, path)
    return path


def flux_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, prefix: str = "", **sizes) -> str:
    """*path*, after a small Flux.1 was written there."""
    return _flux_file(str(path), seed, dtype, prefix, tuple(sorted(sizes.items())))
