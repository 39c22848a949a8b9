"""Small PixelDiT models with random weights in the published names."""

import torch
from transformer_files import config_of, random_tensors


def pixeldit_config(
    *, width: int = 64, depth: int = 2, pixels: int = 2, context: int = 32, head: int = 16, side: int = 4, inner: int = 32
) -> dict:
    """The ``unet_config`` of a small PixelDiT, whose patches are *side* x *side* pixels of 8 values."""
    return config_of(
        {
            "core.pixel_embedder.proj.weight": (8, 3),
            "core.s_embedder.proj.weight": (width, 3 * side**2),
            "core.y_embedder.proj.weight": (width, context),
            "core.y_pos_embedding": (1, 300, width),
            "core.patch_blocks.0.attn.q_norm_x.weight": (head,),
            "core.pixel_blocks.0.compress_to_attn.weight": (inner, 8 * side**2),
            "core.pixel_blocks.0.attn.q_norm.weight": (head,),
            **{f"core.patch_blocks.{number}.": () for number in range(depth)},
            **{f"core.pixel_blocks.{number}.": () for number in range(pixels)},
        }
    )


def pixeldit_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small PixelDiT in the authors' names."""
    return random_tensors(pixeldit_config(**sizes), seed, file_name=lambda name: f"core.{name}")
