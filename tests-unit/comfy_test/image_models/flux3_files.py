"""Small Flux.3 models with random weights in the published names."""

import torch
from transformer_files import config_of, random_tensors

STATES = 8  # of the text model, per token


def flux3_config(
    *, width: int = 64, depth: int = 2, single: int = 2, context: int = 32, head: int = 32, channels: int = 128, few_steps: bool = False
) -> dict:
    """The ``unet_config`` of a small Flux.3, for a text model of *context* values."""
    return config_of(
        {
            "early_stream_modulations.image.lin.weight": (3 * width, width),
            "emb_in.image.weight": (width, channels),
            "emb_in.image_cond.weight": (width, channels),
            "txt_in.weight": (width, STATES * context),
            "time_in.in_layer.weight": (width, 256),
            "single_blocks.0.norm.query_norm.scale": (head,),
            "single_blocks.0.mlp_out.weight": (width, 3 * width),
            **({"ref_time_in.in_layer.weight": (width, 256)} if few_steps else {}),
            **{f"txt_mode_blocks.{number}.": () for number in range(depth)},
            **{f"single_blocks.{number}.": () for number in range(single)},
        }
    )


def flux3_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small Flux.3 in the authors' names."""
    return random_tensors(flux3_config(**sizes), seed, dtype)
