"""LoRA files whose keys need translating before they can be matched to weights."""

from __future__ import annotations

import torch
from torch import Tensor

from comfy.weight_files.state_dicts import FileTensors

# What the files of XLabs and of USO call layers of Flux's blocks, and the published names.
PROCESSORS = {
    ".qkv_lora1.": ".img_attn.qkv.",
    ".qkv_lora2.": ".txt_attn.qkv.",
    ".proj_lora1.": ".img_attn.proj.",
    ".proj_lora2.": ".txt_attn.proj.",
    ".qkv_lora.": ".linear1_qkv.",
    ".proj_lora.": ".linear2.",
    ".down.weight": ".lora_down.weight",
    ".up.weight": ".lora_up.weight",
    ".processor.": ".",
}


def convert_lora(sd: dict[str, Tensor]) -> dict[str, Tensor]:
    """*sd* with keys in a known style; the same object if they are already."""
    converted = _converted(sd)
    return FileTensors(converted, sd.path) if isinstance(sd, FileTensors) and converted is not sd else converted


def _converted(sd: dict[str, Tensor]) -> dict[str, Tensor]:
    if any(key.startswith("lora_unet__") for key in sd):  # Wan "Fun": one underscore too many
        return {
            "lora_unet_" + key.removeprefix("lora_unet__") if key.startswith("lora_unet__") else key: value for key, value in sd.items()
        }
    if "img_in.lora_A.weight" in sd and "single_blocks.0.norm.key_norm.scale" in sd:
        return _from_control_lora(sd)
    if any(".processor.qkv_lora" in key for key in sd):
        return {f"diffusion_model.{_published(key)}": value for key, value in sd.items()}
    return sd


def _from_control_lora(sd: dict[str, Tensor]) -> dict[str, Tensor]:
    """Black Forest Labs' files for edges and depth: they replace norms, and make the first layer take a picture beside the noise."""
    named = {key.replace(".lora_B.bias", ".diff_b").replace("_norm.scale", "_norm.set_weight"): value for key, value in sd.items()}
    shape = torch.tensor([len(sd["img_in.lora_B.weight"]), sd["img_in.lora_A.weight"].shape[1]])
    return {f"diffusion_model.{key}": value for key, value in named.items()} | {"diffusion_model.img_in.reshape_weight": shape}


def _published(key: str) -> str:
    for theirs, published in PROCESSORS.items():
        key = key.replace(theirs, published)
    return key
