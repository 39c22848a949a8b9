"""The names node authors import as ``comfy.utils``; each lives in the module it is imported from."""

from typing import Any

from comfy.families.unet_key_names import TRANSFORMER_BLOCKS, UNET_MAP_ATTENTIONS, UNET_MAP_BASIC, UNET_MAP_RESNET, unet_to_diffusers
from comfy.images.batches import (
    pack_latents,
    repeat_to_batch_size,
    reshape_mask,
    resize_list_to_batch_size,
    resize_to_batch_size,
    string_to_seed,
    unpack_latents,
)
from comfy.images.scaling import bislerp, common_upscale, lanczos
from comfy.images.tiled import get_tiled_scale_steps, tiled_scale, tiled_scale_multidim
from comfy.images.token_masks import upscale_dit_mask
from comfy.lazy_import import lazy_module
from comfy.patching.attribute_paths import ATTR_UNSET, copy_to_param, get_attr, resolve_attr, set_attr, set_attr_buffer, set_attr_param
from comfy.progress_bar import ProgressBar, hook_state, set_progress_bar_enabled, set_progress_bar_global_hook
from comfy.weight_files.state_dicts import (
    calculate_parameters,
    convert_old_quants,
    convert_sd_to,
    detect_layer_quantization,
    load_torch_file,
    safetensors_header,
    save_torch_file,
    state_dict_key_replace,
    state_dict_prefix_replace,
    weight_dtype,
)

__all__ = [
    "ATTR_UNSET",
    "TRANSFORMER_BLOCKS",
    "UNET_MAP_ATTENTIONS",
    "UNET_MAP_BASIC",
    "UNET_MAP_RESNET",
    "ProgressBar",
    "bislerp",
    "calculate_parameters",
    "common_upscale",
    "convert_old_quants",
    "convert_sd_to",
    "copy_to_param",
    "detect_layer_quantization",
    "get_attr",
    "get_tiled_scale_steps",
    "lanczos",
    "load_torch_file",
    "model_trange",
    "pack_latents",
    "repeat_to_batch_size",
    "reshape_mask",
    "resize_list_to_batch_size",
    "resize_to_batch_size",
    "resolve_attr",
    "safetensors_header",
    "save_torch_file",
    "set_attr",
    "set_attr_buffer",
    "set_attr_param",
    "set_progress_bar_enabled",
    "set_progress_bar_global_hook",
    "state_dict_key_replace",
    "state_dict_prefix_replace",
    "string_to_seed",
    "tiled_scale",
    "tiled_scale_multidim",
    "unet_to_diffusers",
    "unpack_latents",
    "upscale_dit_mask",
    "weight_dtype",
]

tqdm_auto = lazy_module("tqdm.auto")


def model_trange(*args: Any, **kwargs: Any) -> Any:
    """A ``range`` that shows its progress on the terminal while a sampler walks through it."""
    return tqdm_auto.trange(*args, **kwargs)


def __getattr__(name: str) -> Any:
    """The current progress settings under upstream's names: they change while the server runs."""
    if name == "PROGRESS_BAR_ENABLED":
        return hook_state.enabled
    if name == "PROGRESS_BAR_HOOK":
        return hook_state.hook
    raise AttributeError(f"module 'comfy.utils' has no attribute {name!r}")
