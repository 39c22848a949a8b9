"""An accelerator with its own, limited memory, played by the processor: residency, eviction and accounting are real."""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.residency.devices import Device
from comfy.units import megabytes
from comfy.wrapper_tensors import inner_tensors, is_wrapper, rebuilt, stored_bytes

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
psutil = lazy_module("psutil")


class SimulatedDevice(Device):
    """``cpu:<index>`` with *capacity_bytes* for weights.

    A weight that is received gets anonymous memory of its own, mapped for it alone; when its last tensor dies, the memory goes
    back to the system and stops counting. Activations lie in ordinary host memory and do not count, so the capacity is what
    weights may take. The lock covers the counters only; finalizers never take it.
    """

    kind = "simulated"
    margin = 1.0
    minimum_weight_share = 0.0
    streams_through_functions = True

    def __init__(self, index: int, capacity_bytes: int, reserved_bytes: int = 0) -> None:
        if capacity_bytes <= 0:
            raise ValueError(f"a simulated device needs memory, not {capacity_bytes} bytes")
        super().__init__(torch.device("cpu", index), reserved_bytes)
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._peak_bytes = 0
        self._streamed_bytes = 0
        self._blocks: dict[int, int] = {}  # address -> size of what lives on the device
        self._released: deque[tuple[int, int]] = deque()

    def total_bytes(self) -> int:
        """The capacity."""
        return self._capacity_bytes

    def used_bytes(self) -> int:
        """Bytes of the weights that live on the device now."""
        with self._lock:
            return self._used_bytes_locked()

    def peak_bytes(self) -> int:
        """The most that was in use at once."""
        with self._lock:
            return self._peak_bytes

    def streamed_bytes(self) -> int:
        """Bytes of host-resident weights that layers fetched for single calls, in all."""
        with self._lock:
            return self._streamed_bytes

    def free_bytes(self) -> int:
        """Capacity that no weight occupies."""
        return self._capacity_bytes - self.used_bytes()

    def reusable_bytes(self) -> int:
        """None: freed memory goes back at once."""
        return 0

    def allocator_total_bytes(self) -> int:
        """What is in use."""
        return self.used_bytes()

    def activation_bytes(self) -> int:
        """The host's free memory: activations lie there."""
        return psutil.virtual_memory().available

    def working_bytes(self, requested_bytes: float = 0) -> float:
        """Only what was reserved explicitly."""
        return self.reserved_bytes

    def receive(self, tensor: Tensor, non_blocking: bool = False) -> Tensor:
        """A copy in the device's memory. Raises ``torch.OutOfMemoryError`` beyond the capacity."""
        if is_wrapper(tensor):
            return rebuilt(tensor, self.receive)
        size = tensor.nbytes
        if size == 0:
            return tensor.clone()
        with self._lock:
            used = self._used_bytes_locked()
            if used + size > self._capacity_bytes:
                raise torch.OutOfMemoryError(
                    f"simulated device {self.torch_device}: {size} bytes do not fit, {used} of "
                    f"{self._capacity_bytes} are in use; free a model or raise --simulated-vram-mb"
                )
            self._used_bytes += size
            self._peak_bytes = max(self._peak_bytes, self._used_bytes)
        try:
            memory = mmap.mmap(-1, size)
        except OSError:
            self._released.append((0, size))
            raise
        flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel())
        with self._lock:
            self._used_bytes_locked()  # an address that was released before is entered anew, not dropped later
            self._blocks[flat.data_ptr()] = size
        weakref.finalize(memory, self._released.append, (flat.data_ptr(), size)).atexit = False
        with torch.no_grad():
            copied = flat.view(tensor.size())
            copied.copy_(tensor)
            if type(tensor) in (torch.Tensor, torch.nn.Parameter):
                return copied
            return tensor.to(tensor.device, copy=True).set_(copied)  # a node pack's kind of tensor: only it knows how to make another

    def plays_memory_of(self, tensor: Tensor) -> bool:
        """Whether *tensor* was received here."""
        with self._lock:
            self._used_bytes_locked()
            return inner_tensors(tensor)[0].untyped_storage().data_ptr() in self._blocks

    def stream_buffer_bytes(self, layer_bytes: int) -> int:
        """None: what a call fetches lies with the activations."""
        return 0

    def patching_bytes(self, count: int, element_bytes: int) -> int:
        """None, for the same reason."""
        return 0

    def stream(self, tensor: Tensor) -> Tensor:
        """Count *tensor*, a per-call copy of a weight that stays on the host, and return it."""
        with self._lock:
            self._streamed_bytes += stored_bytes(tensor)
        return tensor

    stream.takes_quantised = True  # type: ignore[attr-defined]

    def keeps_host_copy(self) -> bool:
        """Always: the host memory is the machine's own."""
        return True

    def display_name(self) -> str:
        """Device and capacity."""
        return f"{self.torch_device} simulated {megabytes(self._capacity_bytes)}"

    def _used_bytes_locked(self) -> int:
        while self._released:
            address, size = self._released.popleft()
            self._blocks.pop(address, None)
            self._used_bytes -= size
        return self._used_bytes
