"""Page-locking host tensors, so that copies to an accelerator run at full speed, within a budget."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
psutil = lazy_module("psutil")
log = logging.getLogger(__name__)
PORTABLE = 1  # cudaHostRegisterPortable
BUDGET_SHARE = 0.5


class PinLedger:
    """Owner of the process's page-locked tensors: at most *budget_bytes* (0: never pin). Used by the loading thread."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._pinned: dict[int, int] = {}

    def total_bytes(self) -> int:
        """Bytes pinned now."""
        return sum(self._pinned.values())

    def pin(self, tensor: Tensor) -> bool:
        """Page-lock *tensor*'s memory. False if it is not allowed, not possible or already done."""
        size, address = tensor.nbytes, tensor.data_ptr()
        if self.budget_bytes <= 0 or tensor.device.type != "cpu" or not tensor.is_contiguous() or address == 0 or tensor.is_pinned():
            return False
        if address in self._pinned or self.total_bytes() + size > self.budget_bytes:
            return False
        if int(torch.cuda.cudart().cudaHostRegister(address, size, PORTABLE)) != 0:
            log.warning("could not page-lock %d bytes; copies to the accelerator will be slower", size)
            return False
        self._pinned[address] = size
        return True

    def unpin(self, tensor: Tensor) -> bool:
        """Undo :meth:`pin`. False for memory that is not pinned here."""
        address = tensor.data_ptr()
        if self._pinned.get(address) != tensor.nbytes:
            return False
        del self._pinned[address]
        return int(torch.cuda.cudart().cudaHostUnregister(address)) == 0


def default_pin_budget_bytes(kind: str, disabled: bool) -> int:
    """Half of the host's memory for CUDA and ROCm cards, else nothing."""
    return 0 if disabled or kind not in ("cuda", "rocm") else int(psutil.virtual_memory().total * BUDGET_SHARE)
