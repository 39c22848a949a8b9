"""ComfyUI's names for devices, dtypes and loaded models, bound to one :class:`~comfy.residency.manager.ModelManager`.

Importing this module imports no torch and asks for no device. The first function that needs the manager makes it from
``comfy.cli_args.args``; :func:`use_manager` puts another in place.
"""

from __future__ import annotations

import platform
import threading
from typing import TYPE_CHECKING, Any

from comfy.cli_args import args
from comfy.interruption import InterruptProcessingException, interrupt_flag
from comfy.lazy_import import lazy_module
from comfy.residency.casting import archive_model_dtypes, cast_to, dtype_size, module_size
from comfy.residency.dtype_policy import DtypePolicy, float8_types
from comfy.residency.intermediate import intermediate_device, intermediate_dtype
from comfy.residency.loaded_model import LoadedModel
from comfy.residency.manager import ModelManager
from comfy.residency.memory_states import CPUState, VRAMState
from comfy.residency.model_cache import AnyCache, CacheHost, make_ram_cache
from comfy.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, device, dtype

__all__ = [
    "CPUState",
    "InterruptProcessingException",
    "LoadedModel",
    "VRAMState",
    "archive_model_dtypes",
    "cast_to",
    "dtype_size",
    "intermediate_device",
    "intermediate_dtype",
    "module_size",
]

torch = lazy_module("torch")
psutil = lazy_module("psutil")
INITIAL_HOST_BYTES = 1024 * MIB
XFORMERS_IS_AVAILABLE = False
XFORMERS_VERSION = ""
NUM_STREAMS = 0
lowvram_available = True
in_training = False


class _Owner:
    """Makes the process's manager, and its dtype policy when they are first needed, and before them its RAM model cache."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._parts: tuple[ModelManager, DtypePolicy] | None = None
        self._ram_cache: AnyCache | None = None
        self.cache_host = CacheHost()

    def ram_cache(self) -> AnyCache:
        if self._parts is not None:
            return self._parts[0].ram_cache
        if self._ram_cache is None:
            with self._lock:
                if self._ram_cache is None:
                    self._ram_cache = make_ram_cache(args, self.cache_host)
        return self._ram_cache

    def parts(self) -> tuple[ModelManager, DtypePolicy]:
        if self._parts is None:
            with self._lock:
                if self._parts is None:
                    self.use(ModelManager(args, ram_cache=self.ram_cache()))
        assert self._parts is not None
        return self._parts

    def use(self, manager: ModelManager | None) -> ModelManager | None:
        before = None if self._parts is None else self._parts[0]
        if manager is None:
            self._parts = None
        else:
            self._parts = (manager, DtypePolicy(manager.devices))
        self.cache_host.manager = manager
        return before


_owner = _Owner()


def manager() -> ModelManager:
    """The process's model manager, made at the first call (which imports torch)."""
    return _owner.parts()[0]


def use_manager(new: ModelManager | None) -> ModelManager | None:
    """Put *new* in place of the manager (None: make one from the flags at next use); returns the one before, or None."""
    return _owner.use(new)


def ram_cache() -> AnyCache:
    """The RAM model cache of the process's manager; asking for it makes no manager and imports no torch."""
    return _owner.ram_cache()


def cache_host() -> CacheHost:
    """What the RAM model cache asks; ``pending_paths`` is set by whoever owns a queue."""
    return _owner.cache_host


def _devices() -> Any:
    return manager().devices


def _policy() -> DtypePolicy:
    return _owner.parts()[1]


def __getattr__(name: str) -> Any:
    """State that lives in the manager, under upstream's names."""
    readers = {
        "current_loaded_models": lambda: manager().current_loaded_models,
        "vram_state": lambda: _devices().vram_state,
        "set_vram_to": lambda: _devices().vram_state,
        "cpu_state": lambda: _devices().cpu_state,
        "total_vram": lambda: get_total_memory(get_torch_device()) / MIB,
        "total_ram": lambda: psutil.virtual_memory().total / MIB,
        "DISABLE_SMART_MEMORY": lambda: args.disable_smart_memory,
        "FORCE_FP32": lambda: args.force_fp32,
        "PRIORITIZE_FP16": lambda: _policy().prioritizes_fp16,
        "FLOAT8_TYPES": lambda: list(float8_types()),
        "OOM_EXCEPTION": lambda: torch.OutOfMemoryError,
        "EXTRA_RESERVED_VRAM": extra_reserved_memory,
        "TOTAL_PINNED_MEMORY": lambda: manager().pin_ledger.total_bytes(),
        "MAX_PINNED_MEMORY": lambda: manager().pin_ledger.budget_bytes or -1,
    }
    if name not in readers:
        raise AttributeError(f"module 'comfy.model_management' has no attribute {name!r}")
    return readers[name]()


# Devices


def get_torch_device() -> device:
    """The device models are loaded to."""
    return _devices().compute_device()


def get_all_torch_devices(exclude_current: bool = False) -> list[device]:
    """Every device models may be loaded to."""
    current = get_torch_device()
    return [entry for entry in _devices().all_devices() if not exclude_current or entry != current]


def get_gpu_device_options() -> list[str]:
    """Choices for a node's device widget: default, cpu, and gpu:N when there are several."""
    count = len(get_all_torch_devices())
    return ["default", "cpu", *(f"gpu:{index}" for index in range(count) if count > 1)]


def resolve_gpu_device_option(option: str | None) -> device | None:
    """The device for a choice of :func:`get_gpu_device_options`; None for the default or an unknown one."""
    if option == "cpu":
        return torch.device("cpu")
    devices = get_all_torch_devices()
    kind, _, index = (option or "").partition(":")
    return devices[int(index)] if kind == "gpu" and index.isdigit() and int(index) < len(devices) else None


def get_total_memory(dev: device | None = None, torch_total_too: bool = False) -> Any:
    """Bytes of the device's memory; with *torch_total_too* also what torch's allocator holds."""
    entry = _devices().find(dev)
    return (entry.total_bytes(), entry.allocator_total_bytes()) if torch_total_too else entry.total_bytes()


def get_free_memory(dev: device | None = None, torch_free_too: bool = False) -> Any:
    """Bytes that can still be allocated; with *torch_free_too* also the part torch's allocator could reuse."""
    entry = _devices().find(dev)
    return (entry.free_bytes(), entry.reusable_bytes()) if torch_free_too else entry.free_bytes()


def get_torch_device_name(device: device) -> str:
    """One line that names the device."""
    return _devices().find(device).display_name()


def is_device_type(device: Any, type: str) -> bool:
    """Whether *device* is of torch's device type *type*. Simulated accelerators are of type ``cpu``."""
    return getattr(device, "type", None) == type


def is_device_cpu(device: Any) -> bool:
    """Whether the processor computes there."""
    return is_device_type(device, "cpu")


def is_device_cuda(device: Any) -> bool:
    """Whether it is an NVIDIA or AMD card."""
    return is_device_type(device, "cuda")


def is_device_mps(device: Any) -> bool:
    """Whether it is Apple's."""
    return is_device_type(device, "mps")


def is_device_xpu(device: Any) -> bool:
    """Whether it is an Intel card."""
    return is_device_type(device, "xpu")


def is_nvidia() -> bool:
    """Whether NVIDIA cards compute."""
    return _devices().kind == "cuda"


def is_amd() -> bool:
    """Whether AMD cards compute."""
    return _devices().kind == "rocm"


def is_intel_xpu() -> bool:
    """Whether Intel cards compute."""
    return _devices().kind == "xpu"


def is_directml_enabled() -> bool:
    """Never: DirectML is not supported."""
    return False


def is_ascend_npu() -> bool:
    """Never: Ascend cards are not supported."""
    return False


def is_mlu() -> bool:
    """Never: Cambricon cards are not supported."""
    return False


def is_ixuca() -> bool:
    """Never: Iluvatar cards are not supported."""
    return False


def is_wsl() -> bool:
    """Whether this is Linux under Windows."""
    return "microsoft" in platform.uname().release.lower()


def mac_version() -> tuple[int, ...] | None:
    """The macOS version, or None elsewhere."""
    text = platform.mac_ver()[0]
    return tuple(int(part) for part in text.split(".")) if text else None


def cpu_mode() -> bool:
    """Whether the processor computes (also for simulated accelerators)."""
    return _devices().cpu_state == CPUState.CPU


def mps_mode() -> bool:
    """Whether Apple's graphics cores compute."""
    return _devices().cpu_state == CPUState.MPS


def unet_offload_device() -> device:
    """Where diffusion models rest."""
    return get_torch_device() if _devices().vram_state == VRAMState.HIGH_VRAM else torch.device("cpu")


def unet_inital_load_device(parameters: int, dtype: dtype) -> device:
    """Where a new diffusion model's weights are made."""
    devices = _devices()
    device, host = get_torch_device(), torch.device("cpu")
    if devices.cpu_state == CPUState.CPU or args.disable_smart_memory or devices.vram_state == VRAMState.NO_VRAM:
        return host
    if devices.vram_state in (VRAMState.HIGH_VRAM, VRAMState.SHARED):
        return device
    free_bytes = get_free_memory(device)
    return device if free_bytes > get_free_memory(host) and dtype_size(dtype) * parameters < free_bytes else host


def text_encoder_offload_device() -> device:
    """Where text encoders rest."""
    return get_torch_device() if args.gpu_only else torch.device("cpu")


def text_encoder_device() -> device:
    """Where text encoders run: the accelerator if it is good at half precision or simulated, else the CPU."""
    devices = _devices()
    on_accelerator = devices.vram_state in (VRAMState.HIGH_VRAM, VRAMState.NORMAL_VRAM) and (
        devices.kind == "simulated" or _policy().should_use_fp16(prioritize_performance=False)
    )
    return get_torch_device() if args.gpu_only or on_accelerator else torch.device("cpu")


def text_encoder_initial_device(load_device: device, offload_device: device, model_size: int = 0) -> device:
    """Where a new text encoder's weights of *model_size* bytes are made."""
    if load_device == offload_device or model_size <= INITIAL_HOST_BYTES or _devices().find(load_device).kind == "simulated":
        return offload_device
    if is_device_mps(load_device):
        return load_device
    free_bytes = get_free_memory(load_device)
    return load_device if free_bytes > get_free_memory(offload_device) * 0.5 and model_size * 1.2 < free_bytes else offload_device


def vae_device() -> device:
    """Where autoencoders run."""
    return torch.device("cpu") if args.cpu_vae else get_torch_device()


def vae_offload_device() -> device:
    """Where autoencoders rest."""
    return get_torch_device() if args.gpu_only else torch.device("cpu")


# dtypes


def _usual_dtypes() -> tuple[dtype, ...]:
    return (torch.float16, torch.bfloat16, torch.float32)


def unet_dtype(
    device: device | None = None, model_params: int = 0, supported_dtypes: Sequence[dtype] | None = None, weight_dtype: dtype | None = None
) -> dtype:
    """See :meth:`DtypePolicy.unet_dtype`."""
    return _policy().unet_dtype(device, model_params, supported_dtypes or _usual_dtypes(), weight_dtype)


def unet_manual_cast(weight_dtype: dtype, inference_device: device, supported_dtypes: Sequence[dtype] | None = None) -> dtype | None:
    """See :meth:`DtypePolicy.unet_manual_cast`."""
    return _policy().unet_manual_cast(weight_dtype, inference_device, supported_dtypes or _usual_dtypes())


def text_encoder_dtype(device: device | None = None, weight_dtype: dtype | None = None) -> dtype:
    """See :meth:`DtypePolicy.text_encoder_dtype`."""
    return _policy().text_encoder_dtype(device, weight_dtype)


def vae_dtype(device: device | None = None, allowed_dtypes: Sequence[dtype] = ()) -> dtype:
    """The dtype to run an autoencoder in, of those it allows."""
    return _policy().vae_dtype(device, allowed_dtypes)


def pick_weight_dtype(dtype: dtype | None, fallback_dtype: dtype, device: device | None = None) -> dtype:
    """See :meth:`DtypePolicy.pick_weight_dtype`."""
    return _policy().pick_weight_dtype(dtype, fallback_dtype, device)


def supports_cast(device: device | None, dtype: dtype) -> bool:
    """Whether weights in *dtype* can be converted on *device*."""
    return _policy().supports_cast(device, dtype)


def supports_dtype(device: device | None, dtype: dtype) -> bool:
    """Whether *device* computes in *dtype* at speed."""
    return dtype == torch.float32 or (not is_device_cpu(device) and dtype in (torch.float16, torch.bfloat16))


def should_use_fp16(
    device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
) -> bool:
    """See :meth:`DtypePolicy.should_use_fp16`."""
    return _policy().should_use_fp16(device, model_params, prioritize_performance, manual_cast)


def should_use_bf16(
    device: device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
) -> bool:
    """See :meth:`DtypePolicy.should_use_bf16`."""
    return _policy().should_use_bf16(device, model_params, prioritize_performance, manual_cast)


def supports_fp8_compute(device: device | None = None) -> bool:
    """Whether float8 matrices are multiplied in hardware."""
    return _policy().supports_fp8_compute(device)


def supports_fp64(device: device | None = None) -> bool:
    """Whether the device has double precision."""
    return not is_device_mps(device) and not is_intel_xpu()


def extended_fp16_support() -> bool:
    """Whether newer families may run in half precision: from torch 2.7."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)


def lora_compute_dtype(device: device | None) -> dtype:
    """The dtype patches are computed in: half precision where the device likes it, else float32."""
    return torch.float16 if should_use_fp16(device) else torch.float32


def cast_to_device(tensor: Tensor, device: device | None, dtype: dtype | None, copy: bool = False) -> Tensor:
    """*tensor* on *device* in *dtype*."""
    return cast_to(tensor, dtype=dtype, device=device, non_blocking=device_supports_non_blocking(device), copy=copy)


def device_supports_non_blocking(device: device | None) -> bool:
    """Whether copies to *device* may be queued."""
    if args.force_non_blocking:
        return True
    return not (is_device_mps(device) or is_intel_xpu() or args.deterministic)


def get_autocast_device(dev: Any) -> str:
    """The device type's name."""
    return getattr(dev, "type", "cuda")


# attention


def sage_attention_enabled() -> bool:
    """Whether the flag asks for it."""
    return args.use_sage_attention


def flash_attention_enabled() -> bool:
    """Whether the flag asks for it."""
    return args.use_flash_attention


def xformers_enabled() -> bool:
    """Never: torch's own attention is used."""
    return False


def xformers_enabled_vae() -> bool:
    """Never: torch's own attention is used."""
    return False


def pytorch_attention_enabled() -> bool:
    """Whether memory estimates may count on fused attention: on accelerators, or by flag."""
    asked_for_other = args.use_split_cross_attention or args.use_quad_cross_attention
    return args.use_pytorch_cross_attention or (not cpu_mode() and not mps_mode() and not asked_for_other)


def pytorch_attention_enabled_vae() -> bool:
    """The same for autoencoders; not on AMD cards, which fail at high resolutions."""
    return not is_amd() and pytorch_attention_enabled()


def pytorch_attention_flash_attention() -> bool:
    """Whether fused attention that never holds the whole matrix is available."""
    return pytorch_attention_enabled() and _devices().kind in ("cuda", "rocm", "xpu")


def force_upcast_attention_dtype() -> dict[dtype, dtype] | None:
    """A map from dtypes to those attention must use instead, or None. Recent macOS gives black pictures in half precision."""
    version = mac_version()
    if args.force_upcast_attention or (version is not None and version >= (14, 5)):
        return {torch.float16: torch.float32}
    return None


# loaded models


def load_models_gpu(
    models: Sequence[Any],
    memory_required: float = 0,
    force_patch_weights: bool = False,
    minimum_memory_required: float | None = None,
    force_full_load: bool = False,
) -> None:
    """See :meth:`ModelManager.load_models_gpu`."""
    manager().load_models_gpu(models, memory_required, force_patch_weights, minimum_memory_required, force_full_load)


def load_model_gpu(model: Any) -> None:
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
    """See :meth:`ModelManager.free_memory`; the last three arguments have no effect here."""
    return manager().free_memory(memory_required, device, keep_loaded)


def loaded_models(only_currently_used: bool = False) -> list[Any]:
    """The living patchers that are loaded."""
    return manager().loaded_models(only_currently_used)


def unload_all_models() -> None:
    """Move every model off every device."""
    manager().unload_all_models()


def unload_model_and_clones(model: Any, unload_additional_models: bool = True, all_devices: bool = False) -> None:
    """See :meth:`ModelManager.unload_model_and_clones`."""
    manager().unload_model_and_clones(model, unload_additional_models, all_devices)


def cleanup_models() -> None:
    """Forget models that are gone."""
    manager().cleanup_models()


def cleanup_models_gc() -> None:
    """Forget models that are gone; collect garbage if one outlived its patchers."""
    manager().cleanup_models_gc()


def soft_empty_cache(force: bool = False) -> None:
    """Give cached device memory back to the system."""
    manager().soft_empty_cache()


def synchronize() -> None:
    """Wait for the accelerator."""
    _devices().find().synchronize()


def extra_reserved_memory() -> int:
    """Bytes of the compute device left to other programs."""
    return _devices().find().reserved_bytes


def minimum_inference_memory() -> float:
    """Bytes of the compute device that computing needs at least beside the weights."""
    return _devices().find().working_bytes()


def maximum_vram_for_weights(device: device | None = None) -> float:
    """Bytes of weights that leave room for computing."""
    return _policy().maximum_vram_for_weights(device)


def pin_memory(tensor: Tensor) -> bool:
    """Page-lock a host tensor, within the budget. Returns whether it was done."""
    return manager().pin_ledger.pin(tensor)


def unpin_memory(tensor: Tensor) -> bool:
    """Undo :func:`pin_memory`."""
    return manager().pin_ledger.unpin(tensor)


def is_oom(e: BaseException) -> bool:
    """Whether *e* says that the device is out of memory."""
    if isinstance(e, torch.OutOfMemoryError):
        return True
    accelerator_error = getattr(torch, "AcceleratorError", None)
    return accelerator_error is not None and isinstance(e, accelerator_error) and "out of memory" in str(e).lower()


def raise_non_oom(e: BaseException) -> None:
    """Raise *e* unless it is an out-of-memory error."""
    if not is_oom(e):
        raise e


def debug_memory_summary() -> str:
    """The allocator's own report, or nothing."""
    return torch.cuda.memory.memory_summary() if is_nvidia() or is_amd() else ""


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
