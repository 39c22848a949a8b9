"""What all clones of a patcher share: how far their module is from its pristine state; and getting a module of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from comfy.patching.placement import Backup
from comfy.patching.protocols import PatchedModule

Override = tuple[dict[str, Backup], dict[str, Any], dict[str, Any], set[str]]


@dataclass(slots=True, eq=False)
class SharedState:
    """The originals of everything that was replaced in one module, by path, and the parameters page-locked by name.

    Only one clone is loaded at a time; whichever unloads puts back what is here.
    """

    backup: dict[str, Backup] = field(default_factory=dict)
    backup_buffers: dict[str, Any] = field(default_factory=dict)
    object_patches_backup: dict[str, Any] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    hook_backup: dict[str, Any] = field(default_factory=dict)

    def as_override(self) -> Override:
        """The four that ComfyUI's ``get_clone_model_override`` hands to a clone."""
        return self.backup, self.backup_buffers, self.object_patches_backup, self.pinned

    def overridden(self, override: Override, is_same_module: bool) -> SharedState:
        """The state that *override* stands for: this one if it is made of the same four."""
        backup, buffers, objects, pinned = override
        is_own = backup is self.backup and buffers is self.backup_buffers and objects is self.object_patches_backup
        if is_same_module and is_own and pinned is self.pinned:
            return self
        return SharedState(backup, buffers, objects, pinned, self.hook_backup if is_same_module else {})


class LentModule(Protocol):
    """A patcher that hands out its module, and what its clones share."""

    def get_clone_model_override(self) -> tuple[PatchedModule, Override]: ...


def load_again(module: torch.nn.Module, recipe: tuple[Any, ...] | None) -> LentModule:
    """The patcher of a second copy of *module*, made by its ``cached_patcher_init``: (function, arguments[, index of the result]).

    Raises ``RuntimeError`` when the loader left none, and what the function raises.
    """
    if recipe is None:
        raise RuntimeError(
            f"cannot load {type(module).__name__} a second time: its loader set no cached_patcher_init; use a core loader node"
        )
    make, arguments, *index = recipe
    made = make(*arguments)
    patcher: LentModule = made[index[0]] if index else made
    return patcher
