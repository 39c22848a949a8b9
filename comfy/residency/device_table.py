"""Which devices this process computes on, chosen once from the flags and what torch finds."""

from __future__ import annotations

import logging
import platform
from argparse import Namespace
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.residency.devices import FETCH_BUFFERS, RESERVED_BYTES, CudaDevice, Device, HostDevice, MpsDevice, XpuDevice
from comfy.residency.memory_states import CPUState, VRAMState
from comfy.residency.simulated import SimulatedDevice
from comfy.units import GIB, MIB

if TYPE_CHECKING:
    from torch import device

torch = lazy_module("torch")
log = logging.getLogger(__name__)


def fetch_buffers(args: Namespace) -> int:
    """How many layers' weights a card fetches at a time: ``--async-offload``, or two; with ``--disable-async-offload`` none ahead."""
    if args.disable_async_offload:
        return 0
    return FETCH_BUFFERS if args.async_offload is None else max(0, args.async_offload)


def asked_reserve_bytes(args: Namespace) -> int | None:
    """What ``--reserve-vram`` leaves to others; None without the flag."""
    reserve_gb = getattr(args, "reserve_vram", None)
    return None if reserve_gb is None else int(reserve_gb * GIB)


def default_reserve_bytes(system: str, total_bytes: int) -> int:
    """What is left to others without the flag: more under Windows, which lends cards' memory to the host, most on large cards there."""
    if system != "Windows":
        return RESERVED_BYTES
    return (700 if total_bytes > 15 * GIB else 600) * MIB


class DeviceTable:
    """The devices, the one in use first, and the memory policy that follows from flags and hardware.

    Constructing it imports torch and asks for accelerators. Immutable afterwards except ``vram_state``, which node packs may set.
    """

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.host = HostDevice(torch.device("cpu"))
        self._reserved_bytes = asked_reserve_bytes(args)
        self.accelerators: tuple[Device, ...] = tuple(self._find_accelerators())
        self.cpu_state = self._cpu_state()
        self.vram_state = self._vram_state()

    def _find_accelerators(self) -> list[Device]:
        args = self.args
        headroom_bytes = int(args.vram_headroom * GIB)
        reserved = self._reserved_bytes
        if args.simulated_vram_mb:
            return [
                SimulatedDevice(index, args.simulated_vram_mb * MIB, (reserved or 0) + headroom_bytes)
                for index in range(max(1, args.simulated_vram_devices))
            ]
        if args.cpu:
            return []
        if torch.cuda.is_available():
            buffers = fetch_buffers(args)
            total_bytes = torch.cuda.mem_get_info(0)[1] if reserved is None and platform.system() == "Windows" else 0
            left = (default_reserve_bytes(platform.system(), total_bytes) if reserved is None else reserved) + headroom_bytes
            return [CudaDevice(torch.device("cuda", index), left, buffers) for index in range(torch.cuda.device_count())]
        left = (RESERVED_BYTES if reserved is None else reserved) + headroom_bytes
        if hasattr(torch, "xpu") and torch.xpu.is_available():
            return [XpuDevice(torch.device("xpu", index), left) for index in range(torch.xpu.device_count())]
        if torch.backends.mps.is_available():
            return [MpsDevice(torch.device("mps"), left)]
        log.info("no accelerator found: computing on the CPU")
        return []

    def _cpu_state(self) -> CPUState:
        kinds = {entry.kind for entry in self.accelerators}
        if "mps" in kinds:
            return CPUState.MPS
        return CPUState.CPU if kinds <= {"simulated"} else CPUState.GPU

    def _vram_state(self) -> VRAMState:
        if not self.accelerators:
            return VRAMState.DISABLED
        if self.cpu_state == CPUState.MPS:
            return VRAMState.SHARED
        if self.args.lowvram:
            return VRAMState.LOW_VRAM
        if self.args.novram:
            return VRAMState.NO_VRAM
        return VRAMState.HIGH_VRAM if self.args.highvram or self.args.gpu_only else VRAMState.NORMAL_VRAM

    @property
    def kind(self) -> str:
        """The kind of device that computes: cuda, rocm, xpu, mps, simulated or cpu."""
        return self.accelerators[0].kind if self.accelerators else "cpu"

    def compute_device(self) -> device:
        """The device that models are loaded to."""
        if not self.accelerators:
            return self.host.torch_device
        if self.kind in ("cuda", "rocm"):
            return torch.device("cuda", torch.cuda.current_device())
        if self.kind == "xpu":
            return torch.device("xpu", torch.xpu.current_device())
        return self.accelerators[0].torch_device

    def all_devices(self) -> list[device]:
        """Every device models may be loaded to; the CPU alone when there is no accelerator."""
        return [entry.torch_device for entry in self.accelerators] or [self.host.torch_device]

    def find(self, torch_device: device | None = None) -> Device:
        """The :class:`Device` of *torch_device* (None: the compute device). Raises ``ValueError`` for one that is not in use."""
        wanted = self.compute_device() if torch_device is None else torch.device(torch_device)
        for entry in (*self.accelerators, self.host):
            if entry.torch_device == wanted:
                return entry
        if wanted.type == "cpu":
            return self.host
        for entry in self.accelerators:
            if entry.torch_device.type == wanted.type and wanted.index is None:
                return self.find()
        raise ValueError(f"device {wanted} is not in use; in use: {', '.join(map(str, self.all_devices()))}")
