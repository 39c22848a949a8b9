"""Tells a model's family and sizes from the names and shapes of its tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import comfy.supported_models
import comfy.supported_models_base
from comfy.dit.registry import read_transformer_config
from comfy.families.family_settings import family_settings
from comfy.families.sd_unet_config import count_blocks, read_unet_config
from comfy.placeholders import placeholders

__all__ = [
    "convert_config",
    "count_blocks",
    "describe_tensors",
    "detect_unet_config",
    "model_config_from_unet",
    "model_config_from_unet_config",
    "unet_prefix_from_state_dict",
]

UNET_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.", "net.")
FALLBACK_PREFIX = "model."
WITHOUT_PREFIX = ("detector.", "tracker.")  # what the names of a network that has none begin with: SAM 3's


def unet_prefix_from_state_dict(state_dict: Iterable[str]) -> str:
    """The prefix below which the diffusion model's tensors lie in a checkpoint; "model." when none of the usual ones does."""
    keys = list(state_dict)
    if all(any(key.startswith(start) for key in keys) for start in WITHOUT_PREFIX):
        return ""
    counts = {prefix: sum(key.startswith(prefix) for key in keys) for prefix in UNET_PREFIXES}
    best = max(counts, key=lambda prefix: counts[prefix])
    return best if counts[best] > 5 else FALLBACK_PREFIX


def detect_unet_config(state_dict: Mapping[str, Any], key_prefix: str, metadata: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """ComfyUI's ``unet_config`` for the tensors (anything with ``shape``) below *key_prefix*, or None for an unknown network.

    Raises ``ModelFileError`` for metadata or sizes that contradict themselves.
    """
    settings = family_settings(metadata, "the file").get("unet")
    shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items() if hasattr(tensor, "shape")}
    config = read_unet_config(shapes, key_prefix, settings)
    if config is None:
        return read_transformer_config(shapes, key_prefix, metadata)
    points = shapes.get(f"{key_prefix}heatmap_head.final_layer.weight")
    return config.as_dict() | ({} if points is None else {"heatmap_head": points[0]})


def model_config_from_unet_config(
    unet_config: Mapping[str, Any],
    state_dict: Mapping[str, Any] | None = None,
    unet_key_prefix: str = "",
    settings: Mapping[str, Any] | None = None,
) -> comfy.supported_models_base.BASE | None:
    """The configuration of the first family that *unet_config* matches, or None."""
    for family in comfy.supported_models.models:
        if family.matches(unet_config, state_dict, unet_key_prefix):
            return family(unet_config, settings)
    return None


def model_config_from_unet(
    state_dict: Mapping[str, Any], unet_key_prefix: str, use_base_if_no_match: bool = False, metadata: Mapping[str, str] | None = None
) -> comfy.supported_models_base.BASE | None:
    """The configuration for the tensors of a checkpoint, or None for an unknown family."""
    unet_config = detect_unet_config(state_dict, unet_key_prefix, metadata)
    if unet_config is None:
        return None
    settings = family_settings(metadata, "the file")
    config = model_config_from_unet_config(unet_config, state_dict, unet_key_prefix, settings)
    if config is None and use_base_if_no_match:
        return comfy.supported_models_base.BASE(unet_config, settings)
    return config


def convert_config(unet_config: Mapping[str, Any]) -> dict[str, Any]:
    """*unet_config* in its present form: one number of residual blocks per level, and a transformer depth per block instead of a list
    of the resolutions (1: full, 2: half, …) that have attention."""
    config = dict(unet_config)
    levels = len(config["channel_mult"]) if "channel_mult" in config else 0
    blocks: Any = config.get("num_res_blocks")
    if isinstance(blocks, int):
        blocks = [blocks] * levels
    if "attention_resolutions" in config:
        resolutions = config.pop("attention_resolutions")
        depths = config["transformer_depth"]
        if isinstance(depths, int):
            depths = [depths] * levels
        if config.get("transformer_depth_middle") is None:
            config["transformer_depth_middle"] = depths[-1]
        used = [depth if 2**level in resolutions else 0 for level, depth in enumerate(depths)]
        config["transformer_depth"] = [depth for depth, count in zip(used, blocks) for _ in range(count)]
        config["transformer_depth_output"] = [depth for depth, count in zip(used, blocks) for _ in range(count + 1)]
    config["num_res_blocks"] = blocks
    return config


def describe_channels(state_dict: Mapping[str, Any], key_prefix: str) -> str:
    """For error messages: how many channels a UNet below *key_prefix* takes, where no family is made for so many; else nothing."""
    config = detect_unet_config(state_dict, key_prefix)
    known = comfy.supported_models.PLAIN_CHANNELS, comfy.supported_models.GUIDED_CHANNELS
    if config is None or any(config["in_channels"] in channels for channels in known):
        return ""
    return f", a UNet that takes {config['in_channels']} input channels"


def describe_tensors(keys: Iterable[str], limit: int = 6) -> str:
    """What a file holds, for error messages: how many tensors, and how they are named."""
    names = list(keys)
    groups: dict[str, int] = {}
    for name in names:
        group = ".".join(name.split(".")[:2])
        groups[group] = groups.get(group, 0) + 1
    common = sorted(groups.items(), key=lambda item: -item[1])[:limit]
    return f"{len(names)} tensors: " + ", ".join(f"{group}.* ({count})" for group, count in common) if names else "no tensors"


__getattr__, __dir__ = placeholders(
    __name__, "models in folders of the Diffusers library", "unet_config_from_diffusers_unet() model_config_from_diffusers_unet()"
)
