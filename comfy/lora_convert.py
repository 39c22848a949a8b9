"""LoRA files whose keys need translating before they can be matched to weights."""

from __future__ import annotations

from torch import Tensor

from comfy.weight_files.state_dicts import FileTensors


def convert_lora(sd: dict[str, Tensor]) -> dict[str, Tensor]:
    """*sd* with keys in a known style; the same object if they are already."""
    if any(key.startswith("lora_unet__") for key in sd):  # Wan "Fun": one underscore too many
        renamed = {
            "lora_unet_" + key.removeprefix("lora_unet__") if key.startswith("lora_unet__") else key: value for key, value in sd.items()
        }
        return FileTensors(renamed, sd.path) if isinstance(sd, FileTensors) else renamed
    return sd
