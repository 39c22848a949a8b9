"""Weights that hooks change for some conditioning, switched while sampling."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import comfy.model_management
from comfy.hooks.base import HookGroup
from comfy.hooks.enums import EnumHookMode, EnumHookType
from comfy.hooks.kinds import create_transformer_options_from_hooks
from comfy.patcher_extension import CallbacksMP
from comfy.patching.loading import WeightLoading
from comfy.patching.low_vram import patched_value
from comfy.patching.patch_table import PatchTable
from comfy.patching.placement import as_parameter
from comfy.patching.weight_patches import add_to_table
from comfy.utils import set_attr

log = logging.getLogger(__name__)


class MemoryCounter:
    """Bytes that may still be used, down to *minimum*."""

    def __init__(self, initial: float, minimum: float = 0) -> None:
        self.value = initial
        self.minimum = minimum

    def use(self, weight: Tensor) -> bool:
        """Take *weight*'s bytes if they are there. Returns whether."""
        if not self.is_useable(weight.nbytes):
            return False
        self.decrement(weight.nbytes)
        return True

    def is_useable(self, used: int) -> bool:
        """Whether *used* bytes could be taken."""
        return self.value - used > self.minimum

    def decrement(self, used: int) -> None:
        """Take *used* bytes in any case."""
        self.value -= used


def create_hook_patches_clone(orig_hook_patches: Mapping[Any, PatchTable], copy_tuples: bool = False) -> dict[Any, PatchTable]:
    """Independent copies of the tables of each hook."""
    return {reference: table.fork() for reference, table in orig_hook_patches.items()}


class HookPatching(WeightLoading):
    """The part of ``ModelPatcher`` for hooks. ``hook_backup`` maps parameter paths to the parameters hooks replaced."""

    hook_patches: dict[Any, PatchTable]
    hook_patches_backup: dict[Any, PatchTable] | None
    hook_backup: dict[str, Tensor]
    cached_hook_patches: dict[HookGroup, dict[str, Tensor]]
    current_hooks: HookGroup | None
    hook_mode: EnumHookMode
    is_clip: bool

    def set_hook_mode(self, hook_mode: EnumHookMode) -> None:
        """Choose between memory and speed."""
        self.hook_mode = hook_mode

    def add_hook_patches(
        self, hook: Any, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]:
        """Like ``add_patches``, for when *hook* is active. Returns the keys whose weight exists."""
        with self.use_ejected():
            table = self.hook_patches.setdefault(hook.hook_ref, PatchTable())
            taken = add_to_table(table, set(self.weights.keys()), patches, strength_patch, strength_model)
            self._patches_changed()
        return taken

    def restore_hook_patches(self) -> None:
        """Forget patches that were registered for one run."""
        if self.hook_patches_backup is not None:
            self.hook_patches, self.hook_patches_backup = self.hook_patches_backup, None

    def register_all_hook_patches(
        self,
        hooks: HookGroup,
        target_dict: dict[str, Any],
        model_options: dict[str, Any] | None = None,
        registered: HookGroup | None = None,
    ) -> HookGroup:
        """Let the weight hooks of *hooks* that are new here add their patches for this run. Returns all that are registered."""
        self.restore_hook_patches()
        registered = HookGroup() if registered is None else registered
        weight_hooks = hooks.get_type(EnumHookType.Weight)
        fresh = [hook for hook in weight_hooks if hook.hook_ref not in self.hook_patches]
        for hook in weight_hooks:
            if hook not in fresh:
                registered.add(hook)
        if fresh:
            self.hook_patches_backup = create_hook_patches_clone(self.hook_patches)
            for hook in fresh:
                hook.add_hook_patches(self, model_options, target_dict, registered)
        self._call_back(CallbacksMP.ON_REGISTER_ALL_HOOK_PATCHES, hooks, target_dict, model_options, registered)
        return registered

    def prepare_hook_patches_current_keyframe(self, t: Tensor, hook_group: HookGroup, model_options: dict[str, Any]) -> None:
        """Move the hooks of *hook_group* to sigma *t*; weights of those whose strength changed are computed again."""
        options = model_options.get("transformer_options", {})
        changed = [hook for hook in hook_group.hooks if hook.hook_keyframe.prepare_current_keyframe(t[0], options)]
        for group in [group for group in self.cached_hook_patches if any(group.contains(hook) for hook in changed)]:
            del self.cached_hook_patches[group]
        if self.current_hooks is not None and any(self.current_hooks.contains(hook) for hook in changed):
            self.patch_hooks(None)

    def get_combined_hook_patches(self, hooks: HookGroup | None) -> dict[str, list[Any]]:
        """The patches of all hooks by weight name, with the strengths of the current step."""
        combined: dict[str, list[Any]] = {}
        for hook in () if hooks is None else hooks.hooks:
            for key, patches in self.hook_patches.get(hook.hook_ref, PatchTable()).items():
                strength = 1.0 if math.isclose(hook.strength, 1.0) else hook.strength
                combined.setdefault(key, []).extend((patch[0] * strength, *patch[1:]) for patch in patches)
        return combined

    def apply_hooks(
        self, hooks: HookGroup | None, transformer_options: dict[str, Any] | None = None, force_apply: bool = False
    ) -> dict[str, Any]:
        """Switch the weights to *hooks* (None: to none). Returns what the hooks add to the options of a call."""
        is_settled = self.current_hooks is hooks and (not force_apply or (not self.is_clip and hooks is None))
        if not is_settled:
            self.patch_hooks(hooks)
            self._call_back(CallbacksMP.ON_APPLY_HOOKS, hooks)
        return create_transformer_options_from_hooks(self, hooks, transformer_options)

    def patch_hooks(self, hooks: HookGroup | None) -> None:
        """Put the weights of *hooks* in place: from the cache, or computed from the weights that are loaded."""
        with self.use_ejected():
            self.unpatch_hooks()
            if hooks is None:
                return
            cached = self.cached_hook_patches.get(hooks)
            values = self._compute_hook_weights(hooks) if cached is None else cached
            weights = self.weights
            for key, value in values.items():
                for path, part in weights.split(key, value.to(self._hook_device(weights.paths(key)[0]))).items():
                    self._put_hook_weight(path, part)
            self.current_hooks = hooks

    def _compute_hook_weights(self, hooks: HookGroup) -> dict[str, Tensor]:
        combined = self.get_combined_hook_patches(hooks)
        weights = self.weights
        known = set(weights.keys())
        originals = self.get_key_patches() if combined else {}
        unknown = combined.keys() - known
        if unknown:
            log.warning("%d weights that hooks change are not in the model, such as %s", len(unknown), min(unknown))
        values = {}
        for key in [key for key in combined if key in known]:
            current = weights.get(key)
            values[key] = patched_value(combined[key], current, key, current.device, current.dtype, originals)
        if self.hook_mode == EnumHookMode.MaxSpeed and values:
            free_bytes = comfy.model_management.get_free_memory(self.load_device)
            counter = MemoryCounter(free_bytes, comfy.model_management.minimum_inference_memory() * 2)
            self.cached_hook_patches[hooks] = {
                key: value if counter.use(value) else value.to(self.offload_device) for key, value in values.items()
            }
        return values

    def _hook_device(self, path: str) -> torch.device:
        return self.weights.parameter(path).device

    def _put_hook_weight(self, path: str, value: Tensor) -> None:
        before = set_attr(self.model, path, as_parameter(value))
        self.hook_backup.setdefault(path, before)

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None:
        """Put the parameters back that hooks replaced (with a set: those of these weight names), the very objects."""
        with self.use_ejected():
            weights = self.weights
            for path in [path for path in self.hook_backup if not whitelist_keys_set or weights.key_of(path) in whitelist_keys_set]:
                set_attr(self.model, path, self.hook_backup.pop(path))
            if not whitelist_keys_set:
                self.current_hooks = None

    def clear_cached_hook_weights(self) -> None:
        """Forget computed weights and put the loaded ones back."""
        self.cached_hook_patches.clear()
        self.patch_hooks(None)

    def clean_hooks(self) -> None:
        """End a run: put the loaded weights back and forget computed ones."""
        self.unpatch_hooks()
        self.clear_cached_hook_weights()
