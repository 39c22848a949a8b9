"""Small files of SAM 3 and 3.1 with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import random_weight

from comfy.ldm.sam3.detector import SAM3Model
from comfy.ldm.sam3.weights import TEXT
from comfy.ops import disable_weight_init

SEEN = 4.0  # what the layers that say whether a thing is in the picture add, so that most are
TEXT_WIDTH, TEXT_LAYERS, TEXT_TOKENS = 64, 2, 32
SMALL = {
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 16,
    "mlp_dim": 96,
    "patch_size": 8,
    "pretrain_grid": 2,
    "grid": 6,
    "text_dim": TEXT_WIDTH,
    "d_model": 32,
    "dim_ff": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_queries": 12,
    "geometry_layers": 1,
    "roi_size": 3,
    "num_maskmem": 3,
    "memory_layers": 2,
    "fuser_layers": 1,
}


def sam3_sizes(multiplex: bool = True, **sizes) -> dict:
    """The ``unet_config`` of a small SAM 3.1 (*multiplex*) or SAM 3."""
    own = {"mem_dim": 32, "mask_channels": (4, 8, 12, 16), "num_multiplex": 4}
    own = own if multiplex else {"mem_dim": 8, "mask_channels": (2, 4, 6, 8), "num_multiplex": 1}
    return {"image_model": "SAM31" if multiplex else "SAM3", **SMALL, **own, **sizes}


def sam3_tensors(seed: int = 0, multiplex: bool = True, **sizes) -> dict[str, torch.Tensor]:
    """A small network in the published names."""
    generator = torch.Generator().manual_seed(seed)
    network = SAM3Model(device=torch.device("meta"), operations=disable_weight_init, **sam3_sizes(multiplex, **sizes))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    tensors = {}
    for name, shape in shapes.items():
        value = random_weight(name, shape, generator)
        if "pred_obj_score_head.layers.2.bias" in name:
            value += SEEN
        tensors[name] = value
    for name in [name for name in tensors if name.startswith("detector.") and ".q_proj." in name]:
        stem, last = name.split(".q_proj.")
        parts = [tensors.pop(f"{stem}.{part}_proj.{last}") for part in "qkv"]
        tensors[f"{stem}.in_proj_{last}"] = torch.cat(parts)
    if multiplex:
        tensors = {
            name.replace("tracker.", "tracker.model.", 1) if name.startswith("tracker.") else name: value for name, value in tensors.items()
        }
    return tensors


def sam3_text_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """A small text model for it, in the published names, which are open_clip's."""
    generator = torch.Generator().manual_seed(seed)
    wide, inner = TEXT_WIDTH, TEXT_WIDTH * 2
    shapes = {
        "token_embedding.weight": (49408, wide),
        "positional_embedding": (TEXT_TOKENS, wide),
        "ln_final.weight": (wide,),
        "ln_final.bias": (wide,),
        "text_projection": (wide, wide),
    }
    for number in range(TEXT_LAYERS):
        stem = f"transformer.resblocks.{number}."
        shapes |= {f"{stem}{norm}.{part}": (wide,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        shapes |= {f"{stem}attn.in_proj_weight": (3 * wide, wide), f"{stem}attn.in_proj_bias": (3 * wide,)}
        shapes |= {f"{stem}attn.out_proj.weight": (wide, wide), f"{stem}attn.out_proj.bias": (wide,)}
        shapes |= {f"{stem}mlp.c_fc.weight": (inner, wide), f"{stem}mlp.c_fc.bias": (inner,)}
        shapes |= {f"{stem}mlp.c_proj.weight": (wide, inner), f"{stem}mlp.c_proj.bias": (wide,)}
    values = {f"{TEXT}encoder.{name}": random_weight(name, shape, generator) for name, shape in shapes.items()}
    return {name: value.half().float() for name, value in values.items()}  # ComfyUI keeps text models in float16


def sam3_file(path, seed: int = 0, multiplex: bool = True, dtype: torch.dtype = torch.float32, **sizes) -> str:
    """*path*, after a small checkpoint was written there: network and text model."""
    tensors = {**sam3_tensors(seed, multiplex, **sizes), **sam3_text_tensors(seed)}
    save_file({name: value.to(dtype) for name, value in tensors.items()}, str(path))
    return str(path)
