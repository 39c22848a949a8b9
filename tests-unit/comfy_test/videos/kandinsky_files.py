"""Small networks of Kandinsky 5 with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors

POOLED = 768  # of CLIP-L


def kandinsky_config(
    *, picture: bool = False, width: int = 128, blocks: int = 2, context: int = 48, time: int = 64, inner: int = 96, pooled: int = POOLED
) -> dict:
    """The ``unet_config`` of a small network, whose heads have 64 channels; with *picture* of one for pictures."""
    values = 64 if picture else 132
    shapes = {
        "visual_transformer_blocks.0.cross_attention.key_norm.weight": (64,),
        "visual_embeddings.in_layer.weight": (width, values),
        "time_embeddings.in_layer.bias": (time,),
        "visual_transformer_blocks.0.feed_forward.in_layer.weight": (inner, width),
        "text_embeddings.in_layer.weight": (width, context),
        "pooled_text_embeddings.in_layer.weight": (time, pooled),
        "text_transformer_blocks.0.": (),
        **{f"visual_transformer_blocks.{number}.": () for number in range(blocks)},
    }
    return config_of(shapes)


def kandinsky_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small network."""
    return random_tensors(kandinsky_config(**sizes), seed, dtype)


def kandinsky_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> str:
    """*path*, after such a network was written there."""
    save_file(kandinsky_tensors(seed, dtype, **sizes), path)
    return str(path)
