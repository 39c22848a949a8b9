"""Small Ideogram 4 models with random weights in the published names."""

import torch
from transformer_files import config_of, random_tensors

STATES = 13  # of the text model, per token


def ideogram_config(*, width: int = 256, depth: int = 2, context: int = 32, head: int = 128, channels: int = 128) -> dict:
    """The ``unet_config`` of a small Ideogram 4, for a text model of *context* values."""
    return config_of(
        {
            "embed_image_indicator.weight": (2, width),
            "llm_cond_norm.weight": (STATES * context,),
            "input_proj.weight": (width, channels),
            "adaln_proj.weight": (24, width),
            "layers.0.attention.norm_q.weight": (head,),
            "layers.0.feed_forward.w1.weight": (2 * width, width),
            **{f"layers.{number}.": () for number in range(depth)},
        }
    )


def ideogram_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Ideogram 4 in the authors' names."""
    return random_tensors(ideogram_config(**sizes), seed, dtype)
