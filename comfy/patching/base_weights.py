"""The pristine weights of cached models: putting them back once the last clone is gone, and proving that they are the same."""

from __future__ import annotations

import hashlib
import uuid
import weakref
from typing import Protocol

import torch
from torch import Tensor

from comfy.patching.placement import Backup, Placement
from comfy.patching.protocols import PatchedModule

SAMPLE_BYTES = 4096


class BaseWeightsChanged(RuntimeError):
    """Weights that nothing may write to are not what was loaded; the text names the first."""


class Base(Protocol):
    """A patcher without patches, as a loader makes it."""

    model: PatchedModule
    backup: dict[str, Backup]
    object_patches_backup: dict[str, object]
    hook_backup: dict[str, object]
    patches_uuid: uuid.UUID
    load_device: torch.device

    def loaded_size(self) -> int: ...

    def current_loaded_device(self) -> torch.device: ...

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False) -> float: ...

    def detach(self, unpatch_all: bool = True) -> PatchedModule: ...


class BaseWeights:
    """Remembers a checksum of each module's weights as loaded, and restores modules to them. Holds no module alive.

    Checksums cover both ends (4 KiB each) of every parameter. Used by the thread that runs nodes.
    """

    def __init__(self) -> None:
        self._sums: weakref.WeakKeyDictionary[PatchedModule, dict[str, bytes]] = weakref.WeakKeyDictionary()

    def note(self, patcher: Base) -> None:
        """Take the checksums of *patcher*'s module, which has just been loaded."""
        self._sums[patcher.model] = _checksums(patcher)

    def restore(self, patcher: Base) -> None:
        """Undo what the patches of clones that are gone left in the module of *patcher*, itself unpatched.

        Weights that are on a device stay there; only layers that were patched are redone. Raises ``BaseWeightsChanged`` when a
        pristine weight is not what was loaded, and what copying to the device raises.
        """
        if _is_patched(patcher):
            if patcher.loaded_size() and patcher.current_loaded_device() == patcher.load_device:
                patcher.partially_load(patcher.load_device)
            else:
                patcher.detach()
        self._compare(patcher)

    def _compare(self, patcher: Base) -> None:
        expected = self._sums.get(patcher.model)
        if expected is None:
            return
        found = _checksums(patcher)
        changed = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
        if changed:
            raise BaseWeightsChanged(
                f"{len(changed)} of {len(expected)} weights of a {type(patcher.model).__name__} are not what was "
                f"loaded, first {changed[0]}; a node pack has written to weights in place"
            )


def _is_patched(patcher: Base) -> bool:
    """Whether what is loaded of the module differs from what *patcher*, the base, would load."""
    return bool(
        patcher.model.current_weight_patches_uuid not in (None, patcher.patches_uuid)
        or patcher.object_patches_backup
        or patcher.hook_backup
    )


def _checksums(patcher: Base) -> dict[str, bytes]:
    placement = Placement(patcher.model, patcher.backup)
    return {path: _checksum(placement.pristine(path)) for path, _ in patcher.model.named_parameters(remove_duplicate=False)}


def _checksum(tensor: Tensor) -> bytes:
    count = max(1, SAMPLE_BYTES // max(1, tensor.element_size()))
    flat = tensor.detach().reshape(-1)
    digest = hashlib.blake2b(str((tuple(tensor.shape), tensor.dtype)).encode(), digest_size=16)
    for piece in (flat[:count], flat[max(count, len(flat) - count) :]):
        digest.update(piece.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()
