"""What the devices in use are and have, under ComfyUI's names."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.attention_asked import IN_PARTS, asked_attention
from comfy.residency.memory_states import CPUState
from comfy.residency.platform_facts import is_device_mps

if TYPE_CHECKING:
    from torch import device

    from comfy.residency.process_models import ProcessModels
    from comfy.residency.protocols import Names

torch = lazy_module("torch")


class DeviceFacts:
    """Answers from the devices of *models*; what node packs may have replaced is looked up in *names*. Any thread. Sizes in bytes."""

    def __init__(self, args: Namespace, models: ProcessModels, names: Names) -> None:
        self._args, self._models, self._names = args, models, names

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceFacts:
        return self  # structures that hold one of these methods are copied; the process has one of this

    def get_total_memory(self, dev: device | None = None, torch_total_too: bool = False) -> Any:
        """The device's memory; with *torch_total_too* also what torch's allocator holds."""
        found = self._models.devices().find(dev)
        return (found.total_bytes(), found.allocator_total_bytes()) if torch_total_too else found.total_bytes()

    def get_free_memory(self, dev: device | None = None, torch_free_too: bool = False) -> Any:
        """What can still be allocated; with *torch_free_too* also the part of it that torch's allocator could reuse."""
        found = self._models.devices().find(dev)
        return (found.free_bytes(), found.reusable_bytes()) if torch_free_too else found.free_bytes()

    def extra_reserved_memory(self) -> int:
        """What is left to other programs on the compute device."""
        return self._models.devices().find().reserved_bytes

    def minimum_inference_memory(self) -> float:
        """What computing needs at least on the compute device beside the weights."""
        return self._models.devices().find().working_bytes()

    def get_torch_device_name(self, device: device) -> str:
        """One line that names the device."""
        return self._models.devices().find(device).display_name()

    def is_nvidia(self) -> bool:
        """Whether NVIDIA cards compute."""
        return self._models.devices().kind == "cuda"

    def is_amd(self) -> bool:
        """Whether AMD cards compute."""
        return self._models.devices().kind == "rocm"

    def is_intel_xpu(self) -> bool:
        """Whether Intel cards compute."""
        return self._models.devices().kind == "xpu"

    def cpu_mode(self) -> bool:
        """Whether the processor computes (also for simulated accelerators)."""
        return self._models.devices().cpu_state == CPUState.CPU

    def mps_mode(self) -> bool:
        """Whether Apple's graphics cores compute."""
        return self._models.devices().cpu_state == CPUState.MPS

    def supports_fp64(self, device: device | None = None) -> bool:
        """Whether the device has double precision."""
        return not is_device_mps(device) and not self._names.is_intel_xpu()

    def device_supports_non_blocking(self, device: device | None) -> bool:
        """Whether copies to *device* may be queued: by ``--force-non-blocking``, or where it is safe."""
        if self._args.force_non_blocking:
            return True
        return not (is_device_mps(device) or self._names.is_intel_xpu() or self._args.deterministic)

    def synchronize(self) -> None:
        """Wait for the compute device."""
        self._models.devices().find().synchronize()

    def debug_memory_summary(self) -> str:
        """The allocator's own report on cards, else nothing."""
        return torch.cuda.memory.memory_summary() if self._names.is_nvidia() or self._names.is_amd() else ""

    def pytorch_attention_enabled(self) -> bool:
        """Whether memory estimates may count on fused attention: on accelerators, unless a flag asks for attention in parts."""
        return not self._names.cpu_mode() and not self._names.mps_mode() and asked_attention(self._args) not in IN_PARTS

    def pytorch_attention_enabled_vae(self) -> bool:
        """Whether autoencoders may count on fused attention; not on AMD cards, which fail at high resolutions."""
        return not self._names.is_amd() and self._names.pytorch_attention_enabled()

    def pytorch_attention_flash_attention(self) -> bool:
        """Whether fused attention that never holds the whole matrix is available."""
        return self._names.pytorch_attention_enabled() and self._models.devices().kind in ("cuda", "rocm", "xpu")

    def sage_attention_enabled(self) -> bool:
        """Whether ``--use-sage-attention`` was given."""
        return bool(self._args.use_sage_attention)

    def flash_attention_enabled(self) -> bool:
        """Whether ``--use-flash-attention`` was given."""
        return bool(self._args.use_flash_attention)

    def comfy_kitchen_attention_enabled(self) -> bool:
        """Whether ``--use-ck-attention`` was given."""
        return bool(self._args.use_ck_attention)

    def force_channels_last(self) -> bool:
        """Whether diffusion models' convolutions have their weights in channels-last order on cards: ``--force-channels-last``."""
        return bool(self._args.force_channels_last)
