"""Which device each kind of model runs on and rests on, under ComfyUI's names."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.casting import dtype_size
from comfy.residency.memory_states import CPUState, VRAMState
from comfy.residency.platform_facts import is_device_mps
from comfy.units import GIB

if TYPE_CHECKING:
    from torch import device, dtype

    from comfy.residency.process_models import ProcessModels
    from comfy.residency.protocols import Names

torch = lazy_module("torch")
INITIAL_HOST_BYTES = GIB


class DeviceRoles:
    """Answers by the flags *args* and the devices of *models*; what node packs may have replaced is looked up in *names*. Any thread."""

    def __init__(self, args: Namespace, models: ProcessModels, names: Names) -> None:
        self._args, self._models, self._names = args, models, names

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceRoles:
        return self  # structures that hold one of these methods are copied; the process has one of this

    def get_torch_device(self) -> device:
        """The device models are loaded to."""
        return self._models.devices().compute_device()

    def get_all_torch_devices(self, exclude_current: bool = False) -> list[device]:
        """Every device models may be loaded to."""
        current = self._names.get_torch_device()
        return [entry for entry in self._models.devices().all_devices() if not exclude_current or entry != current]

    def get_gpu_device_options(self) -> list[str]:
        """Choices for a node's device widget: default, cpu, and gpu:N when there are several."""
        count = len(self._names.get_all_torch_devices())
        return ["default", "cpu", *(f"gpu:{index}" for index in range(count) if count > 1)]

    def resolve_gpu_device_option(self, option: str | None) -> device | None:
        """The device for a choice of :meth:`get_gpu_device_options`; None for the default or an unknown one."""
        if option == "cpu":
            return torch.device("cpu")
        devices = self._names.get_all_torch_devices()
        kind, _, index = (option or "").partition(":")
        return devices[int(index)] if kind == "gpu" and index.isdigit() and int(index) < len(devices) else None

    def unet_offload_device(self) -> device:
        """Where diffusion models rest."""
        high = self._models.devices().vram_state == VRAMState.HIGH_VRAM
        return self._names.get_torch_device() if high else torch.device("cpu")

    def unet_inital_load_device(self, parameters: int, dtype: dtype) -> device:
        """Where a new diffusion model's weights are made."""
        devices = self._models.devices()
        device, host = self._names.get_torch_device(), torch.device("cpu")
        if devices.cpu_state == CPUState.CPU or self._args.disable_smart_memory or devices.vram_state == VRAMState.NO_VRAM:
            return host
        if devices.vram_state in (VRAMState.HIGH_VRAM, VRAMState.SHARED):
            return device
        free_bytes = self._names.get_free_memory(device)
        return device if free_bytes > self._names.get_free_memory(host) and dtype_size(dtype) * parameters < free_bytes else host

    def text_encoder_offload_device(self) -> device:
        """Where text encoders rest."""
        return self._names.get_torch_device() if self._args.gpu_only else torch.device("cpu")

    def text_encoder_device(self) -> device:
        """Where text encoders run: the accelerator if it is good at half precision or simulated, else the CPU."""
        devices = self._models.devices()
        on_accelerator = devices.vram_state in (VRAMState.HIGH_VRAM, VRAMState.NORMAL_VRAM) and (
            devices.kind == "simulated" or self._names.should_use_fp16(prioritize_performance=False)
        )
        return self._names.get_torch_device() if self._args.gpu_only or on_accelerator else torch.device("cpu")

    def text_encoder_initial_device(self, load_device: device, offload_device: device, model_size: int = 0) -> device:
        """Where a new text encoder's weights of *model_size* bytes are made."""
        is_simulated = self._models.devices().find(load_device).kind == "simulated"
        if load_device == offload_device or model_size <= INITIAL_HOST_BYTES or is_simulated:
            return offload_device
        if is_device_mps(load_device):
            return load_device
        free_bytes, host_bytes = self._names.get_free_memory(load_device), self._names.get_free_memory(offload_device)
        return load_device if free_bytes > host_bytes * 0.5 and model_size * 1.2 < free_bytes else offload_device

    def vae_device(self) -> device:
        """Where autoencoders run."""
        return torch.device("cpu") if self._args.cpu_vae else self._names.get_torch_device()

    def vae_offload_device(self) -> device:
        """Where autoencoders rest."""
        return self._names.get_torch_device() if self._args.gpu_only else torch.device("cpu")

    def intermediate_device(self) -> device:
        """Where images, masks and latents are between nodes: on the CPU; asks for the accelerator only with ``--gpu-only``."""
        return self._names.get_torch_device() if self._args.gpu_only else torch.device("cpu")

    def intermediate_dtype(self) -> dtype:
        """The dtype of images, masks and latents between nodes: float32."""
        return torch.float32
