"""What residency needs to know of a place that computes: how much memory it has, and how weights get there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.early_copies import EarlyCopies
from comfy.residency.fetching import StandIn, WeightFetcher, no_stand_in
from comfy.residency.pinning import CudaPins
from comfy.residency.platform_facts import is_oom
from comfy.units import GIB, MIB

if TYPE_CHECKING:
    from torch import Tensor, device

torch = lazy_module("torch")
psutil = lazy_module("psutil")

WORKING_BYTES = int(0.8 * GIB)
RESERVED_BYTES = 400 * MIB
FETCH_BUFFERS = 2
PATCH_ELEMENT_BYTES = 4
HOST_HEADROOM_BYTES = 2 * GIB
HOST_HEADROOM_SHARE = 0.05


class Device:
    """A compute device. Sizes are in bytes; methods may be called from the thread that loads models.

    ``streams_through_functions``: layers whose weights stay on the host must pass them through :meth:`stream`.
    ``fetches_from_locked_memory``: such weights are copied faster, and without waiting, from memory that :meth:`pin` has page-locked.
    ``margin`` multiplies a model's size when room is made for it, because allocators lose some; ``reserved_bytes`` are left to
    other programs; ``minimum_weight_share`` of the free memory goes to weights even when activations ask for all of it.
    ``stand_in(address, bytes)`` tells where else bytes of the host lie, page-locked; None where nowhere.
    """

    kind = "cpu"
    margin = 1.1
    minimum_weight_share = 0.4
    streams_through_functions = False
    fetches_from_locked_memory = False

    def __init__(self, torch_device: device, reserved_bytes: int = RESERVED_BYTES) -> None:
        self.torch_device = torch_device
        self.reserved_bytes = reserved_bytes
        self.stand_in: StandIn = no_stand_in

    @property
    def is_host(self) -> bool:
        """Whether weights are computed with where they were loaded, so that nothing moves."""
        return False

    def properties(self) -> Any:
        """What torch tells of the device; asked on accelerators that need more than their kind to choose dtypes."""
        return getattr(torch, self.torch_device.type).get_device_properties(self.torch_device)

    def total_bytes(self) -> int:
        """All memory of the device."""
        return psutil.virtual_memory().total

    def free_bytes(self) -> int:
        """What can still be allocated, the allocator's own reserve included."""
        return psutil.virtual_memory().available

    def reusable_bytes(self) -> int:
        """The part of :meth:`free_bytes` that the framework's allocator holds and could give back."""
        return self.free_bytes()

    def allocator_total_bytes(self) -> int:
        """All memory that the framework's allocator holds."""
        return self.total_bytes()

    def activation_bytes(self) -> int:
        """What is free for activations."""
        return self.free_bytes()

    def working_bytes(self, requested_bytes: float = 0) -> float:
        """What must stay free beside the weights for a computation that asks for *requested_bytes*."""
        return max(WORKING_BYTES + self.reserved_bytes, requested_bytes + self.reserved_bytes)

    def receive(self, tensor: Tensor, non_blocking: bool = False) -> Tensor:
        """*tensor* in this device's memory: itself if it is there, else a copy that the caller owns."""
        return tensor.to(self.torch_device, non_blocking=non_blocking)

    def stream_buffer_bytes(self, layer_bytes: int) -> int:
        """What must stay free for a layer of *layer_bytes* that is fetched from the host at each call."""
        return layer_bytes

    def patching_bytes(self, count: int, element_bytes: int) -> int:
        """What must stay free to patch a weight of *count* elements at a call: it and a change in the dtype for patches, and the result."""
        return count * (2 * PATCH_ELEMENT_BYTES + element_bytes)

    @property
    def early(self) -> EarlyCopies | None:
        """Weights that are sent here before their model is loaded; None where nothing is."""
        return None

    def new_fetcher(self) -> WeightFetcher | None:
        """What fetches the weights of one module's streamed layers ahead of their use; None where each call fetches its own."""
        return None

    def stream(self, tensor: Tensor) -> Tensor:
        """Called with the copy of a weight that stays on the host, each time a layer uses it. Returns it."""
        return tensor

    def keeps_host_copy(self) -> bool:
        """Whether the host copy of a weight stays while the device has one, so that eviction copies nothing back."""
        memory = psutil.virtual_memory()
        return memory.available > max(HOST_HEADROOM_BYTES, int(memory.total * HOST_HEADROOM_SHARE))

    def plays_memory_of(self, tensor: Tensor) -> bool:
        """Whether *tensor* lies in memory that counts as this device's although torch calls it the host's."""
        return False

    def pin(self, address: int, size_bytes: int) -> bool:
        """Page-lock host memory so that copies from it to this device run at full speed; False where there is nothing to gain."""
        return False

    def unpin(self, address: int) -> bool:
        """Undo the :meth:`pin` that began at *address*; False when it cannot be done."""
        return False

    def empty_cache(self) -> None:
        """Give memory the framework holds but does not use back to the system."""

    def synchronize(self) -> None:
        """Wait until work queued on the device is done."""

    def display_name(self) -> str:
        """One line for logs and ``/system_stats``."""
        return self.torch_device.type


class HostDevice(Device):
    """The processor itself: weights are computed with where they lie."""

    @property
    def is_host(self) -> bool:
        """Always true."""
        return True

    def receive(self, tensor: Tensor, non_blocking: bool = False) -> Tensor:
        """*tensor* itself: nothing moves."""
        return tensor


class CudaDevice(Device):
    """An NVIDIA card, or an AMD card through ROCm (``kind`` tells)."""

    fetches_from_locked_memory = True

    def __init__(self, torch_device: device, reserved_bytes: int = RESERVED_BYTES, fetch_buffers: int = FETCH_BUFFERS) -> None:
        """*fetch_buffers*: how many layers' weights are fetched at a time (0: none ahead)."""
        super().__init__(torch_device, reserved_bytes)
        self.fetch_buffers = fetch_buffers
        self._early = EarlyCopies(torch_device, self._stand_in_now) if fetch_buffers > 0 else None
        self.kind = "rocm" if torch.version.hip else "cuda"
        self.minimum_weight_share = 0.0 if self.kind == "cuda" else 0.4

    def _statistics(self) -> tuple[int, int, int]:
        statistics = torch.cuda.memory_stats(self.torch_device)
        unallocated_bytes, _ = torch.cuda.mem_get_info(self.torch_device)
        return statistics["reserved_bytes.all.current"], statistics["active_bytes.all.current"], unallocated_bytes

    def total_bytes(self) -> int:
        """The card's memory."""
        return torch.cuda.mem_get_info(self.torch_device)[1]

    @property
    def early(self) -> EarlyCopies | None:
        """Weights that are sent here before their model is loaded; None where a flag keeps copies from running while the card computes."""
        return self._early

    def free_bytes(self) -> int:
        """Unallocated memory plus what the allocator could reuse."""
        reserved, active, unallocated = self._statistics()
        return unallocated + reserved - active

    def reusable_bytes(self) -> int:
        """Cached by the allocator and not in use."""
        reserved, active, _ = self._statistics()
        return reserved - active

    def allocator_total_bytes(self) -> int:
        """Held by the allocator."""
        return self._statistics()[0]

    def receive(self, tensor: Tensor, non_blocking: bool = True) -> Tensor:
        """A copy on the card; from page-locked memory only queued, so that many follow each other without the host waiting.

        One that was sent early is taken; when there is no room, what else was sent early is dropped.
        """
        early = self._early
        copy = None if early is None else early.take(tensor)
        if copy is not None:
            return copy
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous()
        locked = self.stand_in(tensor.data_ptr(), tensor.nbytes) if plain else None
        source = tensor if locked is None else locked.view(tensor.dtype).view(tensor.shape)
        try:
            return source.to(self.torch_device, non_blocking=non_blocking)
        except RuntimeError as error:
            if early is None or not early.size_bytes() or not is_oom(error):
                raise
        early.drop()
        return source.to(self.torch_device, non_blocking=non_blocking)

    def _stand_in_now(self, address: int, size_bytes: int) -> Tensor | None:
        return self.stand_in(address, size_bytes)

    def stream_buffer_bytes(self, layer_bytes: int) -> int:
        """A buffer of the layer's size for each that is fetched at a time."""
        return layer_bytes * max(1, self.fetch_buffers)

    def new_fetcher(self) -> WeightFetcher | None:
        """One with this card's number of buffers."""
        return WeightFetcher(self.torch_device, self.fetch_buffers, self.stand_in) if self.fetch_buffers > 0 else None

    def pin(self, address: int, size_bytes: int) -> bool:
        """Page-lock host memory for all cards."""
        return CudaPins().pin(address, size_bytes)

    def unpin(self, address: int) -> bool:
        """Undo :meth:`pin`."""
        return CudaPins().unpin(address)

    def empty_cache(self) -> None:
        """Return cached blocks to the driver, and what was sent early."""
        if self._early is not None:
            self._early.drop()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()

    def synchronize(self) -> None:
        """Wait for the current stream's work."""
        torch.cuda.synchronize(self.torch_device)

    def display_name(self) -> str:
        """Device, card and allocator."""
        return f"{self.torch_device} {torch.cuda.get_device_name(self.torch_device)} : {torch.cuda.get_allocator_backend()}"


class XpuDevice(Device):
    """An Intel accelerator."""

    kind = "xpu"

    def _statistics(self) -> tuple[int, int]:
        statistics: Any = torch.xpu.memory_stats(self.torch_device)
        return statistics["reserved_bytes.all.current"], statistics["active_bytes.all.current"]

    def total_bytes(self) -> int:
        """The card's memory."""
        return torch.xpu.get_device_properties(self.torch_device).total_memory

    def free_bytes(self) -> int:
        """All that is not in use by this process."""
        return self.total_bytes() - self._statistics()[1]

    def reusable_bytes(self) -> int:
        """Cached by the allocator and not in use."""
        reserved, active = self._statistics()
        return reserved - active

    def allocator_total_bytes(self) -> int:
        """Held by the allocator."""
        return self._statistics()[0]

    def empty_cache(self) -> None:
        """Return cached blocks to the driver."""
        torch.xpu.synchronize()
        torch.xpu.empty_cache()

    def synchronize(self) -> None:
        """Wait for queued work."""
        torch.xpu.synchronize()

    def display_name(self) -> str:
        """Device and card."""
        return f"{self.torch_device} {torch.xpu.get_device_name(self.torch_device)}"


class MpsDevice(Device):
    """Apple's graphics cores: they share the host's memory, so a second copy of a weight only costs."""

    kind = "mps"

    def keeps_host_copy(self) -> bool:
        """Never: both copies would lie in the same memory."""
        return False

    def empty_cache(self) -> None:
        """Return cached blocks to the system."""
        torch.mps.empty_cache()

    def synchronize(self) -> None:
        """Wait for queued work."""
        torch.mps.synchronize()
