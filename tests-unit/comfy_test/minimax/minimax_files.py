"""Small networks of MiniMax H3's kind with random weights in the published names, and what belongs to them."""

import torch
from safetensors.torch import save_file
from transformer_files import config_of, qwen3_vl_tensors, random_tensors

CHANNELS, AUDIO_CHANNELS = 24, 32
TURNS = 4  # pairs of values that each axis turns


def minimax_config(
    *,
    width: int = 48,
    heads: int = 2,
    head: int = 32,
    depth: int = 2,
    inner: int = 64,
    context: int = 40,
    curve: int = 0,
    gates: bool = False,
) -> dict:
    """The ``unet_config`` of a small network; *curve*: of one whose times are places on a curve of so many points.

    *gates*: of one with FastVideo's gates.
    """
    shapes = {
        "video_patch_proj.weight": (width, CHANNELS * 4),
        "audio_patch_proj.weight": (width, AUDIO_CHANNELS),
        "final_layer.video_out.weight": (CHANNELS * 4, width),
        "final_layer.audio_out.weight": (AUDIO_CHANNELS, width),
        "condition_proj.weight": (width, context),
        "blocks.0.attn.q_norm.weight": (head,),
        "blocks.0.attn.qkv_proj.weight": (3 * heads * head, width),
        "blocks.0.mlp.fc1.weight": (2 * inner, width),
        "rope.inv_freq": (TURNS,),
        **{f"blocks.{number}.": () for number in range(depth)},
        **{f"token_refiner.blocks.{number}.": () for number in range(2)},
    }
    if gates:
        shapes["blocks.0.attn.to_gate_compress.weight"] = (heads * head, width)
    if curve:
        shapes["adaln_t_table"] = (curve, 6)
    else:
        shapes |= {"time_embedder.proj_in.weight": (20, 16), "time_embedder.proj_out.weight": (24, 20)}
    return config_of(shapes)


def minimax_tensors(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> dict[str, torch.Tensor]:
    """A small network in the published names."""
    tensors = random_tensors(minimax_config(**sizes), seed, dtype)
    tensors["rope.inv_freq"] = 10000.0 ** (-torch.arange(TURNS) / TURNS)
    return tensors


def minimax_file(path, seed: int = 0, dtype: torch.dtype = torch.float32, **sizes) -> str:
    """*path*, after such a network was written there."""
    save_file(minimax_tensors(seed, dtype, **sizes), path)
    return str(path)


def minimax_text_tensors(seed: int = 0, width: int = 32, vocabulary: int = 151656) -> dict[str, torch.Tensor]:
    """A small text encoder: as many layers as the published one, and no norm after them."""
    tensors = qwen3_vl_tensors(seed, vocabulary=vocabulary, width=width, layers=50, published=False)
    return {name: value for name, value in tensors.items() if name != "model.norm.weight"}
