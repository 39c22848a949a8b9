"""Small models with random weights that make frames between others, in the published names: RIFE's and FILM."""

import torch
from safetensors.torch import save_file
from transformer_files import random_weight

from comfy_extras.frame_interpolation_models.film_net import FILMNet
from comfy_extras.frame_interpolation_models.ifnet import IFNet

RIFE = {"head_ch": 4, "channels": (16, 12, 8, 8, 8)}
FILM = {"filters": 4, "flow_filters": (4, 6, 8, 8)}


def interpolation_tensors(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A small "rife" or "film", whose pixels move by several of them."""
    chance = torch.Generator().manual_seed(seed)
    network = IFNet(**RIFE) if kind == "rife" else FILMNet(**FILM)
    tensors = {name: random_weight(name, tuple(value.shape), chance) for name, value in network.named_parameters()}
    for name, value in tensors.items():
        if name.endswith((".beta", "lastconv.0.weight")):
            value *= 2.0
    return tensors


def interpolation_file(path, kind: str, seed: int = 0, dtype: torch.dtype = torch.float32, training: bool = False) -> str:
    """*path*, after such a model was written there; of RIFE's as its *training* saves it."""
    tensors = {name: value.to(dtype) for name, value in interpolation_tensors(kind, seed).items()}
    if training:
        tensors = {f"module.{name.replace('blocks.', 'block', 1)}": value for name, value in tensors.items()}
        tensors |= {"module.teacher.conv0.0.0.weight": torch.zeros(2, 2), "module.caltime.0.weight": torch.zeros(2, 2)}
    save_file(tensors, str(path))
    return str(path)
