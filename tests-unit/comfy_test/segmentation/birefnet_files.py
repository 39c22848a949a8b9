"""Small files of BiRefNet with random weights in the published names."""

import torch
from safetensors.torch import save_file
from transformer_files import random_weight

from comfy.background_removal.birefnet import TRUNK_NAMES, BiRefNet, BiRefNetSizes

SMALL = BiRefNetSizes(width=8, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4), window=4, inner=8, around=6, edge=4)


def birefnet_tensors(seed: int = 0, sizes: BiRefNetSizes = SMALL) -> dict[str, torch.Tensor]:
    """A small BiRefNet, with what its files hold beside weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors, network = {}, BiRefNet(sizes)
    for name, value in network.named_parameters():
        drawn = random_weight(name, tuple(value.shape), generator)
        tensors[_published(name)] = 1 + drawn.abs() if name.endswith("running_var") else drawn
    for name in [name for name in tensors if ".attention.q_proj." in name]:
        stem, last = name.split(".attention.q_proj.")
        tensors[f"{stem}.attn.qkv.{last}"] = torch.cat([tensors.pop(f"{stem}.attention.{part}_proj.{last}") for part in "qkv"])
    index = network.bb.swin.encoder.layers[0].blocks[0].attention.relative_position_bias.relative_position_index
    for stage, depth in enumerate(sizes.depths):
        for block in range(depth):
            tensors[f"bb.layers.{stage}.blocks.{block}.attn.relative_position_index"] = index.view(sizes.window**2, -1).clone()
    for name in [name for name in tensors if name.endswith("running_mean")]:
        tensors[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(5)
    for name in ("conv_ms_spvn_4", "gdt_convs_pred_4.0"):
        tensors |= {f"decoder.{name}.weight": torch.ones(1, 2, 1, 1), f"decoder.{name}.bias": torch.ones(1)}
    return tensors


def _published(name: str) -> str:
    if name.startswith("bb.hidden_states_norms.stage"):
        number, _, last = name.removeprefix("bb.hidden_states_norms.stage").partition(".")
        return f"bb.norm{int(number) - 1}.{last}"
    if name.startswith("bb."):
        for theirs, ours in TRUNK_NAMES:
            name = name.replace(ours, theirs)
    return name


def birefnet_file(path, seed: int = 0, sizes: BiRefNetSizes = SMALL) -> str:
    """*path*, after a small BiRefNet was written there."""
    save_file(birefnet_tensors(seed, sizes), str(path))
    return str(path)
