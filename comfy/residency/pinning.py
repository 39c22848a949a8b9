"""Page-locking host memory, so that copies to an accelerator run at full speed, within a budget."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.host_memory import HostMemory
from comfy.units import GIB, megabytes

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
log = logging.getLogger(__name__)
PORTABLE = 1  # cudaHostRegisterPortable
BUDGET_SHARE = 0.5
LONGEST_BYTES = 512 * GIB - 1  # CUDA refuses to register 512 GiB or more at once


class PinBackend(Protocol):
    """What page-locks memory; a :class:`~comfy.residency.devices.Device` is one. Called from any thread, blocks some 0.1 s per GB."""

    def pin(self, address: int, size_bytes: int) -> bool:
        """Page-lock *size_bytes* from *address*; False when it cannot be done."""

    def unpin(self, address: int) -> bool:
        """Undo the :meth:`pin` that began at *address*; False when it cannot be done."""


class CudaPins:
    """Page-locking by CUDA's (and ROCm's) runtime, for all its devices."""

    def pin(self, address: int, size_bytes: int) -> bool:
        if int(torch.cuda.cudart().cudaHostRegister(address, size_bytes, PORTABLE)) == 0:
            return True
        # The runtime reports a failure once more at this thread's next kernel launch: be that launch.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda").add_(1)
        return False

    def unpin(self, address: int) -> bool:
        for index in range(torch.cuda.device_count()):  # copies from the memory may still be queued
            torch.cuda.synchronize(index)
        return int(torch.cuda.cudart().cudaHostUnregister(address)) == 0


class PinLedger:
    """Owner of the process's page-locked memory: at most *budget_bytes* (0: never pin). Any thread; the lock covers the books only.

    ``keeps_out(address, bytes)`` tells of memory that is never locked: privately mapped files, of which locking would make copies.
    """

    def __init__(self, budget_bytes: int, backend: PinBackend | None = None) -> None:
        self.budget_bytes = budget_bytes
        self._backend = backend or CudaPins()
        self.keeps_out: Callable[[int, int], bool] = lambda address, size_bytes: False
        self._lock = threading.Lock()
        self._ranges: dict[int, int] = {}
        self._tensors: set[int] = set()

    def total_bytes(self) -> int:
        """Bytes pinned now, those being pinned included."""
        with self._lock:
            return sum(self._ranges.values())

    def ensure_pin_budget(self, size_bytes: int) -> bool:
        """Whether *size_bytes* more stay within the budget."""
        return self.total_bytes() + size_bytes <= self.budget_bytes

    def ensure_pin_registerable(self, size_bytes: int) -> bool:
        """Whether *size_bytes* can be pinned in one call."""
        return 0 < size_bytes <= LONGEST_BYTES

    def covers(self, address: int, size_bytes: int) -> bool:
        """Whether the memory lies in one range that is pinned."""
        with self._lock:
            return any(start <= address and address + size_bytes <= start + size for start, size in self._ranges.items())

    def pin_range(self, address: int, size_bytes: int) -> bool:
        """Page-lock *size_bytes* from *address*. False if not within the budget, not possible, or pinned here already.

        The caller keeps the memory alive until it has called :meth:`unpin_range`.
        """
        if self.keeps_out(address, size_bytes):
            return False
        with self._lock:
            used_bytes = sum(self._ranges.values())
            allowed = used_bytes + size_bytes <= self.budget_bytes and self.ensure_pin_registerable(size_bytes)
            if not allowed or self._touches_pinned(address, size_bytes):
                return False
            self._ranges[address] = size_bytes
        done = False
        try:
            done = self._backend.pin(address, size_bytes)
        except RuntimeError as error:  # torch's, when there is no working accelerator after all
            log.warning("page-locking failed: %s", error)
        finally:
            if not done:
                with self._lock:
                    del self._ranges[address]
        if not done:
            log.warning("could not page-lock %s; copies to the accelerator will be slower", megabytes(size_bytes))
        return done

    def _touches_pinned(self, address: int, size_bytes: int) -> bool:
        """Whether part of the range is pinned already; no memory can be twice. Caller holds the lock."""
        return any(start < address + size_bytes and address < start + size for start, size in self._ranges.items())

    def unpin_range(self, address: int) -> bool:
        """Undo :meth:`pin_range`. False for memory that is not pinned here or that the runtime does not give back."""
        with self._lock:
            known = address in self._ranges and address not in self._tensors
        return known and self._unpin(address)

    def pin(self, tensor: Tensor) -> bool:
        """Page-lock *tensor*'s memory. False if it is not allowed, not possible or already done."""
        size, address = tensor.nbytes, tensor.data_ptr()
        if self.budget_bytes <= 0 or tensor.device.type != "cpu" or not tensor.is_contiguous() or address == 0 or tensor.is_pinned():
            return False
        if not self.pin_range(address, size):
            return False
        with self._lock:
            self._tensors.add(address)
        return True

    def unpin(self, tensor: Tensor) -> bool:
        """Undo :meth:`pin`. False for memory that is not pinned here, or pinned as part of a larger range."""
        address = tensor.data_ptr()
        with self._lock:
            known = address in self._tensors and self._ranges[address] == tensor.nbytes
        return known and self._unpin(address)

    def _unpin(self, address: int) -> bool:
        """Give the range back, and only then forget it: another thread may not pin the same memory meanwhile."""
        done = self._backend.unpin(address)
        with self._lock:
            self._ranges.pop(address, None)
            self._tensors.discard(address)
        if not done:
            log.warning("page-locked memory at %#x could not be given back", address)
        return done


def default_pin_budget_bytes(kind: str, disabled: bool) -> int:
    """Half of the host's memory, or of the control group's limit, for CUDA and ROCm cards, else nothing."""
    return 0 if disabled or kind not in ("cuda", "rocm") else int(HostMemory().total_bytes() * BUDGET_SHARE)
