"""Small PixelDiT models with random weights in the published names."""

import torch
from transformer_files import config_of, random_tensors


def _shapes(width, depth, pixels, context, head, side, inner, before):
    return {
        f"{before}pixel_embedder.proj.weight": (8, 3),
        f"{before}s_embedder.proj.weight": (width, 3 * side**2),
        f"{before}y_embedder.proj.weight": (width, context),
        f"{before}y_pos_embedding": (1, 300, width),
        f"{before}patch_blocks.0.attn.q_norm_x.weight": (head,),
        f"{before}pixel_blocks.0.compress_to_attn.weight": (inner, 8 * side**2),
        f"{before}pixel_blocks.0.attn.q_norm.weight": (head,),
        **{f"{before}patch_blocks.{number}.": () for number in range(depth)},
        **{f"{before}pixel_blocks.{number}.": () for number in range(pixels)},
    }


def pixeldit_config(
    *, width: int = 64, depth: int = 2, pixels: int = 2, context: int = 32, head: int = 16, side: int = 4, inner: int = 32
) -> dict:
    """The ``unet_config`` of a small PixelDiT, whose patches are *side* x *side* pixels of 8 values."""
    return config_of(_shapes(width, depth, pixels, context, head, side, inner, "core."))


def pixeldit_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small PixelDiT in the authors' names."""
    return random_tensors(pixeldit_config(**sizes), seed, file_name=lambda name: f"core.{name}")


def pid_shapes(channels: int = 16, later: bool = False) -> dict[str, tuple[int, ...]]:
    """Shapes of a small PiD of three blocks, two of which are told of a latent, and of its later version."""
    own = _shapes(64, 3, 1, 32, 16, 4, 32, "")
    own |= {"lq_proj.latent_proj.0.weight": (8, channels, 3, 3), "lq_proj.latent_proj.3.block.0.weight": (8,)}
    own |= {f"lq_proj.gate_modules.{number}.": () for number in range(2)}
    return own | ({"lq_proj.pit_head.weight": (64, 8), "lq_proj.gate_modules.0.content_proj.weight": (1, 128)} if later else {})


def pid_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small PiD in the published names."""
    return random_tensors(config_of(pid_shapes(**sizes)), seed)
