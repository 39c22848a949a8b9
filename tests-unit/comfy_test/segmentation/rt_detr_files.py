"""Small files of RT-DETR v4 with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import random_weight

from comfy.ldm.rt_detr.backbone import Stage
from comfy.ldm.rt_detr.rtdetr_v4 import RTv4

STAGES = (
    Stage(8, 8, 16, 1, 2, 3, False, False),
    Stage(16, 8, 24, 1, 2, 3, False, True),
    Stage(24, 8, 32, 2, 2, 5, True, True),
    Stage(32, 8, 40, 1, 2, 5, True, True),
)
SMALL = {
    "image_model": "RT_DETR_v4",
    "stem": (8, 8),
    "stages": STAGES,
    "enc_h": 48,
    "enc_inner": 24,
    "enc_blocks": 3,
    "enc_ff": 64,
    "enc_layers": 1,
    "dec_h": 32,
    "dec_ff": 40,
    "dec_layers": 3,
    "lqe": 64,
    "classes": 80,
    "bins": 33,
}


def rt_detr_tensors(seed: int = 0, **sizes) -> dict[str, torch.Tensor]:
    """A small network, with what its files hold beside weights."""
    generator = torch.Generator().manual_seed(seed)
    network = RTv4(device=torch.device("meta"), **{**SMALL, **sizes})
    tensors = {}
    for name, value in network.named_parameters():
        drawn = random_weight(name, tuple(value.shape), generator)
        tensors[name] = 1 + drawn.abs() if name.endswith("running_var") else drawn
    tensors |= {"decoder.up": torch.tensor([0.5]), "decoder.reg_scale": torch.tensor([8.0])}
    for name in [name for name in tensors if name.endswith("running_var")]:
        tensors[name.replace("running_var", "num_batches_tracked")] = torch.tensor(3)
    return tensors


def rt_detr_file(path, seed: int = 0, **sizes) -> str:
    """*path*, after a small network was written there."""
    save_file(rt_detr_tensors(seed, **sizes), str(path))
    return str(path)
