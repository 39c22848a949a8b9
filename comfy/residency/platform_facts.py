"""What can be told of devices, errors and the system without asking for a device, under ComfyUI's names."""

from __future__ import annotations

import platform
from typing import Any

from comfy.lazy_import import lazy_module

torch = lazy_module("torch")


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


def get_autocast_device(dev: Any) -> str:
    """The device type's name."""
    return getattr(dev, "type", "cuda")


def extended_fp16_support() -> bool:
    """Whether newer families may run in half precision: from torch 2.7."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 7)


def is_oom(e: BaseException) -> bool:
    """Whether *e* says that the device is out of memory. Imports no torch for an error that torch did not make."""
    if not any(kind.__module__.partition(".")[0] == "torch" for kind in type(e).__mro__):
        return False
    if isinstance(e, torch.OutOfMemoryError):
        return True
    accelerator_error = getattr(torch, "AcceleratorError", None)
    return accelerator_error is not None and isinstance(e, accelerator_error) and "out of memory" in str(e).lower()


def raise_non_oom(e: BaseException) -> None:
    """Raise *e* unless it is an out-of-memory error."""
    if not is_oom(e):
        raise e


def xformers_enabled() -> bool:
    """Never: the package is not used."""
    return False


def xformers_enabled_vae() -> bool:
    """Never: the package is not used."""
    return False
