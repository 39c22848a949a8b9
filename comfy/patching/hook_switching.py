"""Switching the weights that hooks change for some conditioning, while sampling."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

import comfy.lora
import comfy.model_management
from comfy.hooks.base import HookGroup
from comfy.hooks.enums import EnumHookMode
from comfy.hooks.kinds import create_transformer_options_from_hooks
from comfy.patcher_extension import CallbacksMP
from comfy.patching.attachments import call_back
from comfy.patching.attribute_paths import get_attr, set_attr
from comfy.patching.hook_patches import MemoryCounter
from comfy.patching.low_vram import patched_value
from comfy.patching.model_weights import ModelWeights
from comfy.patching.placement import as_parameter
from comfy.patching.protocols import HookPatcher

log = logging.getLogger(__name__)


class HookSwitching:
    """Puts the weights of hooks into *patcher*'s module and takes them out again. Made for one operation.

    The patcher's ``hook_backup`` maps parameter paths to the parameters that hooks replaced; all its clones share it.
    """

    def __init__(self, patcher: HookPatcher) -> None:
        self._patcher = patcher
        self._weights = ModelWeights(patcher.model)

    def prepare_keyframe(self, t: Tensor, hook_group: HookGroup, model_options: dict[str, Any]) -> None:
        """Move the hooks of *hook_group* to sigma *t*; weights of those whose strength changed are computed again."""
        patcher = self._patcher
        options = model_options.get("transformer_options", {})
        changed = [hook for hook in hook_group.hooks if hook.hook_keyframe.prepare_current_keyframe(t[0], options)]
        for group in [group for group in patcher.cached_hook_patches if any(group.contains(hook) for hook in changed)]:
            del patcher.cached_hook_patches[group]
        if patcher.current_hooks is not None and any(patcher.current_hooks.contains(hook) for hook in changed):
            patcher.patch_hooks(None)

    def apply(
        self, hooks: HookGroup | None, transformer_options: dict[str, Any] | None = None, force_apply: bool = False
    ) -> dict[str, Any]:
        """Switch the weights to *hooks* (None: to none). Returns what the hooks add to the options of a call."""
        patcher = self._patcher
        is_settled = patcher.current_hooks is hooks and (not force_apply or (not patcher.is_clip and hooks is None))
        if not is_settled:
            patcher.patch_hooks(hooks)
            call_back(patcher, CallbacksMP.ON_APPLY_HOOKS, hooks)
        return create_transformer_options_from_hooks(patcher, hooks, transformer_options)

    def patch(self, hooks: HookGroup | None) -> None:
        """Put the weights of *hooks* in place: from the cache, or computed from the weights that are loaded."""
        patcher = self._patcher
        with patcher.use_ejected():
            patcher.unpatch_hooks()
            if hooks is None:
                return
            cached = patcher.cached_hook_patches.get(hooks)
            free_bytes = comfy.model_management.get_free_memory(patcher.load_device)
            counter = MemoryCounter(free_bytes, comfy.model_management.minimum_inference_memory() * 2)
            if cached is None:
                combined = self._known(patcher.get_combined_hook_patches(hooks))
                originals: dict[str, Any] = patcher.get_key_patches() if combined else {}
                try:
                    for key in combined:
                        patcher.patch_hook_weight_to_device(hooks, combined, key, originals, counter)
                except BaseException:  # what is kept is the whole or nothing
                    patcher.cached_hook_patches.pop(hooks, None)
                    raise
            else:
                for key in cached:
                    patcher.patch_cached_hook_weights(cached, key, counter)
            patcher.current_hooks = hooks

    def patch_weight(
        self,
        hooks: HookGroup,
        combined_patches: Mapping[str, Sequence[Any]],
        key: str,
        original_weights: dict[str, Any],
        memory_counter: MemoryCounter,
    ) -> None:
        """Put the value of *key* with its *combined_patches* in place, and keep it for the next time where the hook mode asks for speed.

        *original_weights* are what ``get_key_patches`` gives, for patches that merge with another model's weight. Kept values stay on
        the device as long as *memory_counter* allows. Nothing happens to a weight without patches.
        """
        if key not in combined_patches:
            return
        patcher, current = self._patcher, self._weights.get(key)
        value = patched_value(combined_patches[key], current, key, current.device, current.dtype, original_weights=original_weights)
        has_room = memory_counter.use(value)
        if patcher.hook_mode == EnumHookMode.MaxSpeed:
            kept = value if has_room else value.to(patcher.offload_device)
            patcher.cached_hook_patches.setdefault(hooks, {})[key] = kept
        self._put(key, value, has_room)

    def put_cached(self, cached_weights: Mapping[str, Tensor], key: str, memory_counter: MemoryCounter) -> None:
        """Put the value of *key* in *cached_weights* in place. *memory_counter* says whether what it replaces may stay beside it."""
        value = cached_weights[key]
        is_there = value.device == self._weights.parameter(self._weights.paths(key)[0]).device
        self._put(key, value, is_there or memory_counter.use(value))

    def _put(self, key: str, value: Tensor, has_room: bool) -> None:
        """Put *value* in place; without room for both, what it replaces waits on the host."""
        patcher, home = self._patcher, self._patcher.offload_device
        device = self._weights.parameter(self._weights.paths(key)[0]).device
        for path, part in self._weights.split(key, value.to(device)).items():
            replaced = set_attr(patcher.model, path, as_parameter(part))
            if path not in patcher.hook_backup:
                patcher.hook_backup[path] = replaced if has_room or device == home else as_parameter(replaced.to(home))

    def _known(self, patches: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Those of *patches* whose weight is in the model; the others are named in the log."""
        known = set(self._weights.keys())
        unknown = patches.keys() - known
        if unknown:
            log.warning("%d weights that hooks change are not in the model, such as %s", len(unknown), min(unknown))
        return {key: patch for key, patch in patches.items() if key in known}

    def unpatch(self, whitelist_keys_set: set[str] | None = None) -> None:
        """Put the parameters back that hooks replaced (with a set: those of these weight names): the very objects, unless they had to wait
        on the host."""
        patcher = self._patcher
        replaced = patcher.hook_backup
        with patcher.use_ejected():
            for path in [path for path in replaced if not whitelist_keys_set or self._weights.key_of(path) in whitelist_keys_set]:
                device, before = get_attr(patcher.model, path).device, replaced.pop(path)
                set_attr(patcher.model, path, before if before.device == device else as_parameter(before.to(device)))
            if not whitelist_keys_set:
                patcher.current_hooks = None

    def clear_cache(self) -> None:
        """Forget computed weights and put the loaded ones back."""
        self._patcher.cached_hook_patches.clear()
        self._patcher.patch_hooks(None)

    def clean(self) -> None:
        """End a run: put the loaded weights back and forget computed ones."""
        self._patcher.unpatch_hooks()
        self._patcher.clear_cached_hook_weights()
