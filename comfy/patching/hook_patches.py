"""The weight patches that hooks bring to one patcher, and which hooks are in place."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from comfy.hooks.base import Hook, HookGroup
from comfy.hooks.enums import EnumHookMode, EnumHookType
from comfy.patcher_extension import CallbacksMP
from comfy.patching.attachments import call_back
from comfy.patching.model_options import copy_containers
from comfy.patching.patch_table import Patches, PatchTable, fork_table, read_patches
from comfy.patching.protocols import RegistersHooks
from comfy.patching.weight_patches import add_to_table
from comfy.wrapper_tensors import stored_bytes


class MemoryCounter:
    """Bytes that may still be used, down to *minimum*."""

    def __init__(self, initial: float, minimum: float = 0) -> None:
        self.value = initial
        self.minimum = minimum

    def use(self, weight: Tensor) -> bool:
        """Take *weight*'s bytes if they are there. Returns whether."""
        if not self.is_useable(stored_bytes(weight)):
            return False
        self.decrement(stored_bytes(weight))
        return True

    def is_useable(self, used: int) -> bool:
        """Whether *used* bytes could be taken."""
        return self.value - used > self.minimum

    def decrement(self, used: int) -> None:
        """Take *used* bytes in any case."""
        self.value -= used


def create_hook_patches_clone(orig_hook_patches: Mapping[Any, Patches], copy_tuples: bool = False) -> dict[Any, Patches]:
    """Independent copies of the tables of each hook. *copy_tuples* has no effect: a patch never changes."""
    return {reference: fork_table(table) for reference, table in orig_hook_patches.items()}


class HookPatches:
    """What hooks may change and change now. Owns all of it; holds neither patcher nor module.

    ``hook_patches`` maps a hook's reference to its patches by weight name; ``hook_patches_backup`` is what it is after the run
    (None: the same). ``cached_hook_patches`` maps groups to computed weights by name. ``forced_hooks`` are put in place at loading.
    """

    def __init__(self) -> None:
        self.hook_patches: dict[Any, Patches] = {}
        self.hook_patches_backup: dict[Any, Patches] | None = None
        self.cached_hook_patches: dict[HookGroup, dict[str, Tensor]] = {}
        self.current_hooks: HookGroup | None = None
        self.forced_hooks: HookGroup | None = None
        self.hook_mode = EnumHookMode.MaxSpeed
        self.is_clip = False

    def clone(self) -> HookPatches:
        """Equal patches and hooks that change independently; computed weights are shared."""
        twin = HookPatches.__new__(HookPatches)
        twin.hook_patches = create_hook_patches_clone(self.hook_patches)
        backup = self.hook_patches_backup
        twin.hook_patches_backup = None if backup is None else create_hook_patches_clone(backup)
        twin.cached_hook_patches = copy_containers(self.cached_hook_patches)
        twin.current_hooks = self.current_hooks.clone() if self.current_hooks else self.current_hooks
        twin.forced_hooks = self.forced_hooks.clone() if self.forced_hooks else self.forced_hooks
        twin.hook_mode = self.hook_mode
        twin.is_clip = self.is_clip
        return twin

    def set_mode(self, hook_mode: EnumHookMode) -> None:
        """Choose between memory and speed."""
        self.hook_mode = hook_mode

    def add(
        self, hook: Hook, known: Collection[str], patches: Mapping[Any, Any], strength_patch: float, strength_model: float
    ) -> list[Any]:
        """Append *patches*, those whose weight is *known*, to those of *hook*. Returns the keys taken."""
        table = self.hook_patches.setdefault(hook.hook_ref, PatchTable())
        return add_to_table(table, known, patches, strength_patch, strength_model)

    def restore(self) -> None:
        """Forget patches that were registered for one run."""
        if self.hook_patches_backup is not None:
            self.hook_patches, self.hook_patches_backup = self.hook_patches_backup, None

    def register(
        self,
        patcher: RegistersHooks,
        hooks: HookGroup,
        target_dict: dict[str, Any],
        model_options: dict[str, Any] | None = None,
        registered: HookGroup | None = None,
    ) -> HookGroup:
        """Let the weight hooks of *hooks* that are new here add their patches for this run. Returns all that are registered."""
        patcher.restore_hook_patches()
        registered = HookGroup() if registered is None else registered
        weight_hooks = hooks.get_type(EnumHookType.Weight)
        fresh = [hook for hook in weight_hooks if hook.hook_ref not in self.hook_patches]
        for hook in weight_hooks:
            if hook not in fresh:
                registered.add(hook)
        if fresh:
            self.hook_patches_backup = create_hook_patches_clone(self.hook_patches)
            for hook in fresh:
                hook.add_hook_patches(patcher, model_options, target_dict, registered)
        call_back(patcher, CallbacksMP.ON_REGISTER_ALL_HOOK_PATCHES, hooks, target_dict, model_options, registered)
        return registered

    def combined(self, hooks: HookGroup | None) -> dict[str, list[Any]]:
        """The patches of all hooks by weight name, with the strengths of the current step."""
        combined: dict[str, list[Any]] = {}
        for hook in () if hooks is None else hooks.hooks:
            table = self.hook_patches.get(hook.hook_ref, {})
            strength = 1.0 if math.isclose(hook.strength, 1.0) else hook.strength
            for key in table:
                combined.setdefault(key, []).extend((patch[0] * strength, *patch[1:]) for patch in read_patches(table, key))
        return combined
