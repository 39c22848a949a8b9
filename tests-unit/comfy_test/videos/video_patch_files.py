"""Small model patches of video models with random weights in the published names: Uni3C's ControlNet of Wan, LTX's duration head."""

import torch
from safetensors.torch import save_file
from transformer_files import random_weight

from comfy.ldm.lightricks.duration_head import DurationHead
from comfy.ldm.wan.uni3c import WanUni3CControlnet
from comfy.ops import disable_weight_init

THEIRS = {".self_attn.q.": ".self_attn.to_q.", ".self_attn.k.": ".self_attn.to_k.", ".self_attn.v.": ".self_attn.to_v."}
THEIRS |= {".self_attn.o.": ".self_attn.to_out.0."}


def uni3c_tensors(width: int = 128, blocks: int = 2, inner: int = 192, seed: int = 0) -> dict[str, torch.Tensor]:
    """A ControlNet for a Wan of *width* values per token, of *inner* itself, in diffusers' names of attention, as it is published."""
    sizes = {"conv_out_dim": width, "dim": inner, "ffn_dim": 160, "time_embed_dim": width, "out_proj_dim": width, "mid_channels": 16}
    network, chance = WanUni3CControlnet(**sizes, num_layers=blocks, operations=disable_weight_init), torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in network.named_parameters():
        for ours, theirs in THEIRS.items():
            name = name.replace(ours, theirs)
        tensors[name] = random_weight(name, tuple(value.shape), chance)
    return tensors


def duration_tensors(video: int = 4096, sound: int = 2048, prefix: str = "", seed: int = 0) -> dict[str, torch.Tensor]:
    """A duration head for tokens of *video* and *sound* values, which tells of a few seconds."""
    chance = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(value.shape) for name, value in DurationHead(video, sound).named_parameters()}
    tensors = {prefix + name: random_weight(name, shape, chance) for name, shape in shapes.items()}
    tensors[f"{prefix}mlp_out.bias"] += 1.5
    return tensors


def patch_file(path, tensors: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> str:
    """*path*, after *tensors* were written there in *dtype*."""
    save_file({name: value.to(dtype) for name, value in tensors.items()}, str(path))
    return str(path)
