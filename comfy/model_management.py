"""ComfyUI's names for devices, dtypes and loaded models, bound to this process's :class:`ProcessModels`.

Importing this module imports no torch and asks for no device. The first function that needs the model manager has it made from
``comfy.cli_args.args``; :func:`use_manager` puts another in place. Functions that use others given here look them up in this module at
each call, so that what a node pack has put in their place counts.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from comfy.cli_args import args
from comfy.interruption import InterruptProcessingException, interrupt_flag
from comfy.lazy_import import lazy_module
from comfy.residency.casting import archive_model_dtypes, cast_to, dtype_size, module_size
from comfy.residency.device_facts import DeviceFacts
from comfy.residency.device_roles import DeviceRoles
from comfy.residency.dtype_policy import float8_types
from comfy.residency.dtype_roles import DtypeRoles
from comfy.residency.loaded_model import LoadedModel
from comfy.residency.manager import ModelManager
from comfy.residency.memory_states import CPUState, VRAMState
from comfy.residency.model_cache import AnyCache
from comfy.residency.platform_facts import (
    extended_fp16_support,
    get_autocast_device,
    is_ascend_npu,
    is_device_cpu,
    is_device_cuda,
    is_device_mps,
    is_device_type,
    is_device_xpu,
    is_directml_enabled,
    is_ixuca,
    is_mlu,
    is_oom,
    is_wsl,
    mac_version,
    raise_non_oom,
    xformers_enabled,
    xformers_enabled_vae,
)
from comfy.residency.process_models import ProcessModels
from comfy.residency.protocols import Names, Patcher
from comfy.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, device

__all__ = [
    "CPUState",
    "InterruptProcessingException",
    "LoadedModel",
    "VRAMState",
    "archive_model_dtypes",
    "cast_to",
    "dtype_size",
    "extended_fp16_support",
    "get_autocast_device",
    "is_ascend_npu",
    "is_device_cpu",
    "is_device_cuda",
    "is_device_mps",
    "is_device_type",
    "is_device_xpu",
    "is_directml_enabled",
    "is_ixuca",
    "is_mlu",
    "is_oom",
    "is_wsl",
    "mac_version",
    "module_size",
    "raise_non_oom",
    "xformers_enabled",
    "xformers_enabled_vae",
]

torch = lazy_module("torch")
psutil = lazy_module("psutil")
XFORMERS_IS_AVAILABLE = False
XFORMERS_VERSION = ""
lowvram_available = True
in_training = False

_models = ProcessModels(args)
_names = cast(Names, sys.modules[__name__])


def process_models() -> ProcessModels:
    """The owner of everything in this process that holds models."""
    return _models


def names() -> Names:
    """This module, for those who must find what node packs have put in place of its functions."""
    return _names


def manager() -> ModelManager:
    """The process's model manager, made at the first call (which imports torch)."""
    return _models.manager()


def use_manager(new: ModelManager | None) -> ModelManager | None:
    """Put *new* in place of the manager (None: make one from the flags at next use); returns the one before, or None."""
    return _models.use(new)


def ram_cache() -> AnyCache:
    """The RAM model cache of the process's manager; asking for it makes no manager and imports no torch."""
    return _models.ram_cache()


def __getattr__(name: str) -> Any:
    """State that lives in the manager, under upstream's names."""
    readers = {
        "current_loaded_models": lambda: manager().current_loaded_models,
        "vram_state": lambda: _models.devices().vram_state,
        "set_vram_to": lambda: _models.devices().vram_state,
        "cpu_state": lambda: _models.devices().cpu_state,
        "total_vram": lambda: get_total_memory(get_torch_device()) / MIB,
        "total_ram": lambda: psutil.virtual_memory().total / MIB,
        "NUM_STREAMS": lambda: getattr(_models.devices().find(), "fetch_buffers", 0),
        "DISABLE_SMART_MEMORY": lambda: args.disable_smart_memory,
        "FORCE_FP32": lambda: args.force_fp32,
        "PRIORITIZE_FP16": lambda: _models.policy().prioritizes_fp16,
        "FLOAT8_TYPES": lambda: list(float8_types()),
        "OOM_EXCEPTION": lambda: torch.OutOfMemoryError,
        "MIN_WEIGHT_MEMORY_RATIO": lambda: 0.0 if is_nvidia() else 0.4,
        "EXTRA_RESERVED_VRAM": extra_reserved_memory,
        "TOTAL_PINNED_MEMORY": lambda: manager().pin_ledger.total_bytes(),
        "MAX_PINNED_MEMORY": lambda: manager().pin_ledger.budget_bytes or -1,
    }
    if name not in readers:
        raise AttributeError(f"module 'comfy.model_management' has no attribute {name!r}")
    return readers[name]()


# Where models run and rest

_roles = DeviceRoles(args, _models, _names)
get_torch_device = _roles.get_torch_device
get_all_torch_devices = _roles.get_all_torch_devices
get_gpu_device_options = _roles.get_gpu_device_options
resolve_gpu_device_option = _roles.resolve_gpu_device_option
unet_offload_device = _roles.unet_offload_device
unet_inital_load_device = _roles.unet_inital_load_device
text_encoder_offload_device = _roles.text_encoder_offload_device
text_encoder_device = _roles.text_encoder_device
text_encoder_initial_device = _roles.text_encoder_initial_device
vae_device = _roles.vae_device
vae_offload_device = _roles.vae_offload_device
intermediate_device = _roles.intermediate_device
intermediate_dtype = _roles.intermediate_dtype

# What the devices are and have

_facts = DeviceFacts(args, _models, _names)
get_total_memory = _facts.get_total_memory
get_free_memory = _facts.get_free_memory
extra_reserved_memory = _facts.extra_reserved_memory
minimum_inference_memory = _facts.minimum_inference_memory
get_torch_device_name = _facts.get_torch_device_name
is_nvidia = _facts.is_nvidia
is_amd = _facts.is_amd
is_intel_xpu = _facts.is_intel_xpu
cpu_mode = _facts.cpu_mode
mps_mode = _facts.mps_mode
supports_fp64 = _facts.supports_fp64
device_supports_non_blocking = _facts.device_supports_non_blocking
synchronize = _facts.synchronize
debug_memory_summary = _facts.debug_memory_summary
pytorch_attention_enabled = _facts.pytorch_attention_enabled
pytorch_attention_enabled_vae = _facts.pytorch_attention_enabled_vae
sage_attention_enabled = _facts.sage_attention_enabled
flash_attention_enabled = _facts.flash_attention_enabled
comfy_kitchen_attention_enabled = _facts.comfy_kitchen_attention_enabled
force_channels_last = _facts.force_channels_last
pytorch_attention_flash_attention = _facts.pytorch_attention_flash_attention

# dtypes

_dtypes = DtypeRoles(args, _models, _names)
unet_dtype = _dtypes.unet_dtype
unet_manual_cast = _dtypes.unet_manual_cast
text_encoder_dtype = _dtypes.text_encoder_dtype
vae_dtype = _dtypes.vae_dtype
pick_weight_dtype = _dtypes.pick_weight_dtype
supports_cast = _dtypes.supports_cast
supports_dtype = _dtypes.supports_dtype
should_use_fp16 = _dtypes.should_use_fp16
should_use_bf16 = _dtypes.should_use_bf16
supports_fp8_compute = _dtypes.supports_fp8_compute
supports_nvfp4_compute = _dtypes.supports_nvfp4_compute
supports_mxfp8_compute = _dtypes.supports_mxfp8_compute
lora_compute_dtype = _dtypes.lora_compute_dtype
cast_to_device = _dtypes.cast_to_device
force_upcast_attention_dtype = _dtypes.force_upcast_attention_dtype
maximum_vram_for_weights = _dtypes.maximum_vram_for_weights


# loaded models


def load_models_gpu(
    models: Sequence[Patcher],
    memory_required: float = 0,
    force_patch_weights: bool = False,
    minimum_memory_required: float | None = None,
    force_full_load: bool = False,
) -> None:
    """Bring the patchers *models*, and those that they need, to their devices; the last of the list loads first.

    *memory_required* bytes are wanted for activations; *minimum_memory_required* of them (default: all) are never given to weights. Other
    models leave the device as far as needed; what still does not fit stays on the host, unless *force_full_load*. Raises what a copy
    raises, out of memory included. Blocks.
    """
    manager().load_models_gpu(models, memory_required, force_patch_weights, minimum_memory_required, force_full_load)


def load_model_gpu(model: Patcher) -> None:
    """Load one patcher."""
    load_models_gpu([model])


def free_memory(
    memory_required: float,
    device: device | None,
    keep_loaded: Iterable[LoadedModel] = (),
    for_dynamic: bool = False,
    pins_required: int = 0,
    ram_required: int = 0,
) -> list[LoadedModel]:
    """Move models off *device* until *memory_required* bytes are free there; returns those that left it entirely.

    Models in *keep_loaded* stay. The last three arguments have no effect here. Blocks.
    """
    return manager().free_memory(memory_required, device, keep_loaded)


def loaded_models(only_currently_used: bool = False) -> list[Patcher]:
    """The living patchers that are loaded."""
    return manager().loaded_models(only_currently_used)


def unload_all_models() -> None:
    """Move every model off every device."""
    manager().unload_all_models()


def unload_model_and_clones(model: Patcher, unload_additional_models: bool = True, all_devices: bool = False) -> None:
    """Move the module of *model*, and by default the models attached to it, off the compute device, or off all devices."""
    manager().unload_model_and_clones(model, unload_additional_models, all_devices)


def current_stream(device: Any) -> Any:
    """The queue of work of an NVIDIA accelerator *device* that is in use; None for other devices, which have none."""
    device = None if device is None else torch.device(device)
    return torch.cuda.current_stream(device) if device is not None and device.type == "cuda" else None


def cleanup_models() -> None:
    """Forget models that are gone."""
    manager().cleanup_models()


def cleanup_models_gc() -> None:
    """Forget models that are gone; collect garbage if one outlived its patchers."""
    manager().cleanup_models_gc()


def soft_empty_cache(force: bool = False) -> None:
    """Give cached device memory back to the system."""
    manager().soft_empty_cache()


def pin_memory(tensor: Tensor) -> bool:
    """Page-lock a host tensor, within the budget. Returns whether it was done."""
    return manager().pin_ledger.pin(tensor)


def unpin_memory(tensor: Tensor) -> bool:
    """Undo :func:`pin_memory`."""
    return manager().pin_ledger.unpin(tensor)


# interruption


def interrupt_current_processing(value: bool = True) -> None:
    """Ask the running prompt to stop, or withdraw the request."""
    interrupt_flag.set(value)


def processing_interrupted() -> bool:
    """Whether a stop was asked for."""
    return interrupt_flag.is_set()


def throw_exception_if_processing_interrupted() -> None:
    """Raise ``InterruptProcessingException`` if a stop was asked for."""
    interrupt_flag.raise_if_set()
