"""How the names in SAM 3's files and those of its parameters differ."""

from collections.abc import Mapping

import torch

from comfy.families.diffusers_unet import RenamedSource
from comfy.families.weight_source import WeightSource

FUSED = ("in_proj_weight", "in_proj_bias")  # queries, keys and values in one, as torch's attention has them
TEXT, RESIZER = "detector.backbone.language_backbone.", "detector.backbone.language_backbone.resizer."
UNUSED = ("no_mem_pos_enc",)
TABLES = (".attn.freqs_cis",)  # of rotations, which are computed here
IN_FILES = {"tracker.model.": "tracker."}  # what SAM 3.1's files say before the tracker's names
OTHER_NAMES = ((".mlp.0.", ".mlp.lin1."), (".mlp.2.", ".mlp.lin2."), (".norm_final.", ".norm_final_attn."))  # that ComfyUI gives


def network_source(source: WeightSource) -> WeightSource:
    """The network's tensors in *source*, under their names here but for those that :func:`split` takes apart."""
    shapes = source.shapes()
    names = {name: key for key in shapes if (name := parameter_name(key)) is not None}
    return RenamedSource(source, names, {name: shapes[key] for name, key in names.items()})


def split(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters, as views of *tensors*."""
    found = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        if last not in FUSED:
            found[name] = tensor
            continue
        for part, rows in zip("qkv", tensor.chunk(3)):
            found[f"{stem}.{part}_proj.{last.removeprefix('in_proj_')}"] = rows
    return found


def parameter_name(key: str) -> str | None:
    """What the tensor *key* is called here, but for those that are taken apart; None for one that is no part of the network."""
    if key.startswith(TEXT) and not key.startswith(RESIZER):
        return None
    if key.endswith((*TABLES, *UNUSED)):
        return None
    for theirs, ours in IN_FILES.items():
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
    if ".sam_mask_decoder.transformer." in key or ".interactive_sam_mask_decoder.transformer." in key:
        for theirs, ours in OTHER_NAMES:
            key = key.replace(theirs, ours)
    return key
