"""Page-locked memory in place of weights that are mapped from a store.

A card's runtime locks memory for writing, and the system would copy every page of a private mapping for that. So a second, shared mapping
of the same file is locked, its twin, into which nobody writes; and copies to the card come from there, as long as this process has written
into none of the weight's own pages.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from comfy.ram_model_store.mapping import is_untouched
from comfy.residency.pinning import PinLedger

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.ram_model_store.store import RamModelStore

log = logging.getLogger(__name__)


class StandIns:
    """The twins in *store*, as far as *ledger* has them locked. Any thread."""

    def __init__(self, store: RamModelStore, ledger: PinLedger) -> None:
        self._store, self._ledger = store, ledger
        store.makes_twins = ledger.budget_bytes > 0
        self._is_told = False

    def for_locking(self, tensor: Tensor) -> Tensor:
        """The bytes to lock so that *tensor* is copied at full speed: its own, or those of its twin."""
        twin = self._store.twin_of(tensor.data_ptr(), tensor.nbytes) if tensor.is_contiguous() else None
        return tensor if twin is None else twin

    def for_copying(self, address: int, size_bytes: int) -> Tensor | None:
        """The same *size_bytes* as at *address* in locked memory; None where there are none."""
        twin = self._store.twin_of(address, size_bytes)
        if twin is None or not self._ledger.covers(twin.data_ptr(), size_bytes):
            return None
        untouched = is_untouched(address, size_bytes)
        if untouched is None and not self._is_told:
            self._is_told = True
            log.info("RAM model store: the system does not tell which pages were written to, so copies to the accelerator are slower")
        return twin if untouched else None
