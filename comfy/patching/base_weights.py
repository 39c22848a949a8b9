"""The pristine weights of cached models: putting them back once the last clone is gone, and proving that they are the same."""

from __future__ import annotations

import uuid
from typing import Protocol

import torch

from comfy.patching.placement import Backup, Placement
from comfy.patching.protocols import PatchedModule
from comfy.patching.schedules import schedules
from comfy.patching.tripwire import put_back
from comfy.ram_model_cache.checksums import WeightChecksums, Weights, WeightsChanged
from comfy.wrapper_tensors import stored_bytes

__all__ = ["Base", "BaseWeights", "WeightsChanged"]


class Base(Protocol):
    """A patcher without patches, as a loader makes it."""

    model: PatchedModule
    backup: dict[str, Backup]
    backup_buffers: dict[str, object]
    object_patches_backup: dict[str, object]
    hook_backup: dict[str, object]
    patches_uuid: uuid.UUID
    load_device: torch.device
    offload_device: torch.device

    def loaded_size(self) -> int: ...

    def current_loaded_device(self) -> torch.device: ...

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False) -> float: ...

    def detach(self, unpatch_all: bool = True) -> PatchedModule: ...

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None: ...

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None: ...


class BaseWeights:
    """Remembers a checksum of each module's weights as loaded, and restores modules to them. Holds no module alive.

    Used by the thread that runs nodes.
    """

    def __init__(self) -> None:
        self._checksums = WeightChecksums(_pristine)

    def note(self, patcher: Base) -> None:
        """Take the checksums of *patcher*'s module, which has just been loaded, and note its schedule."""
        schedules().note(patcher)
        self._checksums.note(patcher)

    def restore(self, patcher: Base, spare_bytes: int = 0) -> None:
        """Undo what the patches of clones that are gone left in the module of *patcher*, itself unpatched.

        Patched weights that take at most *spare_bytes* stay where they are, for the next clone with equal patches; loading any other
        clone puts the pristine ones back. Of more, only layers that were patched are redone, where they are. Small buffers and the noise
        schedule are put back. Raises ``WeightsChanged`` when a pristine weight is not what was loaded, and what copying to the device
        raises.
        """
        if 0 < patched_bytes(patcher) <= spare_bytes:
            if patcher.hook_backup:
                patcher.unpatch_hooks()
            if patcher.object_patches_backup:
                patcher.unpatch_model(patcher.offload_device, unpatch_weights=False)
        elif _is_patched(patcher):
            if patcher.loaded_size() and patcher.current_loaded_device() == patcher.load_device:
                patcher.partially_load(patcher.load_device)
            else:
                patcher.detach()
        put_back(patcher)
        self._checksums.check(patcher)


def patched_bytes(patcher: Base) -> int:
    """Bytes of the weights of *patcher*'s module that stand beside their pristine ones because patches changed them."""
    kept = list(patcher.backup.values())
    return sum(stored_bytes(backup.weight) for backup in kept if getattr(backup, "patched", True) and backup.weight is not None)


def _is_patched(patcher: Base) -> bool:
    """Whether what is loaded of the module differs from what *patcher*, the base, would load."""
    return bool(
        patcher.model.current_weight_patches_uuid not in (None, patcher.patches_uuid)
        or patcher.object_patches_backup
        or patcher.hook_backup
    )


def _pristine(patcher: Base) -> Weights:
    placement = Placement(patcher.model, patcher.backup)
    return ((path, placement.pristine(path)) for path, _ in patcher.model.named_parameters(remove_duplicate=False))
