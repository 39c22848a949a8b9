"""Nodes for changes to a model that hold for some conditioning only: making them, timing them, and attaching them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_extras.hook_conditioning_nodes import (
    CONDITIONING_NODES,
    HOOKS,
    ConditioningSetDefaultAndCombine,
    ConditioningSetProperties,
    ConditioningSetPropertiesAndCombine,
    PairConditioningCombine,
    PairConditioningSetDefaultAndCombine,
    PairConditioningSetProperties,
    PairConditioningSetPropertiesAndCombine,
    SetModelHooksOnCond,
)
from comfy_extras.hook_keyframe_nodes import (
    KEYFRAME_NODES,
    CreateHookKeyframe,
    CreateHookKeyframesFromFloats,
    CreateHookKeyframesInterpolated,
)
from comfy_extras.node_inputs import boolean, real

if TYPE_CHECKING:
    from comfy.hooks import HookGroup, HookKeyframeGroup
    from comfy.loading.lora_files import LoraTensors
    from comfy.text.encoder import CLIP

__all__ = [
    "CombineHooks",
    "CombineHooksEight",
    "CombineHooksFour",
    "ConditioningSetDefaultAndCombine",
    "ConditioningSetProperties",
    "ConditioningSetPropertiesAndCombine",
    "ConditioningTimestepsRange",
    "CreateHookKeyframe",
    "CreateHookKeyframesFromFloats",
    "CreateHookKeyframesInterpolated",
    "CreateHookLora",
    "CreateHookLoraModelOnly",
    "CreateHookModelAsLora",
    "CreateHookModelAsLoraModelOnly",
    "PairConditioningCombine",
    "PairConditioningSetDefaultAndCombine",
    "PairConditioningSetProperties",
    "PairConditioningSetPropertiesAndCombine",
    "SetClipHooks",
    "SetHookKeyframes",
    "SetModelHooksOnCond",
]

hooks_module = lazy_module("comfy.hooks")
lora_files = lazy_module("comfy.loading.lora_files")
sd = lazy_module("comfy.sd")

CATEGORY = "advanced/hooks"
_PREVIOUS = {"prev_hooks": ("HOOKS",)}


def _strength() -> tuple[str, dict[str, Any]]:
    return real(1.0, -20.0, 20.0)


def _percent(default: float) -> tuple[str, dict[str, Any]]:
    return real(default, 0.0, 1.0, 0.001)


class _MakesHooks:
    """Attributes of nodes that return hooks."""

    EXPERIMENTAL = True
    RETURN_TYPES = ("HOOKS",)
    CATEGORY = f"{CATEGORY}/create"


class CreateHookLora(_MakesHooks):
    """Makes a hook of a LoRA. Keeps the tensors of the last file for the next run."""

    FUNCTION = "create_hook"

    def __init__(self) -> None:
        self.loaded_lora: LoraTensors | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = (folder_paths.get_filename_list("loras"),)
        return {"required": {"lora_name": files, "strength_model": _strength(), "strength_clip": _strength()}, "optional": _PREVIOUS}

    def create_hook(
        self, lora_name: str, strength_model: float, strength_clip: float, prev_hooks: HookGroup | None = None
    ) -> tuple[HookGroup]:
        """*prev_hooks* and the new one; *prev_hooks* alone if both strengths are 0."""
        before = hooks_module.HookGroup() if prev_hooks is None else prev_hooks
        if strength_model == 0 and strength_clip == 0:
            return (before,)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        former, self.loaded_lora = self.loaded_lora, None
        self.loaded_lora = lora_files.load_lora_file(path, former)
        made = hooks_module.create_hook_lora(lora=self.loaded_lora, strength_model=strength_model, strength_clip=strength_clip)
        return (before.clone_and_combine(made),)


class CreateHookLoraModelOnly(CreateHookLora):
    """Makes a hook of a LoRA for the diffusion model alone."""

    FUNCTION = "create_hook_model_only"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = (folder_paths.get_filename_list("loras"),)
        return {"required": {"lora_name": files, "strength_model": _strength()}, "optional": _PREVIOUS}

    def create_hook_model_only(self, lora_name: str, strength_model: float, prev_hooks: HookGroup | None = None) -> tuple[HookGroup]:
        """*prev_hooks* and the new one."""
        return self.create_hook(lora_name, strength_model, 0, prev_hooks)


class CreateHookModelAsLora(_MakesHooks):
    """Makes a hook of a checkpoint, towards whose weights a model is moved. Keeps the weights of the last file for the next run."""

    FUNCTION = "create_hook"

    def __init__(self) -> None:
        self.loaded_weights: tuple[str, Any, Any] | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = (folder_paths.get_filename_list("checkpoints"),)
        return {"required": {"ckpt_name": files, "strength_model": _strength(), "strength_clip": _strength()}, "optional": _PREVIOUS}

    def create_hook(
        self, ckpt_name: str, strength_model: float, strength_clip: float, prev_hooks: HookGroup | None = None
    ) -> tuple[HookGroup]:
        """*prev_hooks* and the new one."""
        before = hooks_module.HookGroup() if prev_hooks is None else prev_hooks
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        if self.loaded_weights is None or self.loaded_weights[0] != path:
            self.loaded_weights = None
            model, clip = sd.load_checkpoint_guess_config(path, embedding_directory=folder_paths.get_folder_paths("embeddings"))[:2]
            parts = (model, None if clip is None else clip.patcher)
            self.loaded_weights = (path, *map(hooks_module.get_patch_weights_from_model, parts))
        _, of_model, of_clip = self.loaded_weights
        made = hooks_module.create_hook_model_as_lora(
            weights_model=of_model, weights_clip=of_clip, strength_model=strength_model, strength_clip=strength_clip
        )
        return (before.clone_and_combine(made),)


class CreateHookModelAsLoraModelOnly(CreateHookModelAsLora):
    """Makes a hook of a checkpoint for the diffusion model alone."""

    FUNCTION = "create_hook_model_only"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = (folder_paths.get_filename_list("checkpoints"),)
        return {"required": {"ckpt_name": files, "strength_model": _strength()}, "optional": _PREVIOUS}

    def create_hook_model_only(self, ckpt_name: str, strength_model: float, prev_hooks: HookGroup | None = None) -> tuple[HookGroup]:
        """*prev_hooks* and the new one."""
        return self.create_hook(ckpt_name, strength_model, 0.0, prev_hooks)


class SetClipHooks:
    """Applies hooks to a text encoder."""

    EXPERIMENTAL = True
    RETURN_TYPES = ("CLIP",)
    CATEGORY = f"{CATEGORY}/clip"
    FUNCTION = "apply_hooks"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        switches = {"apply_to_conds": boolean(True, advanced=True), "schedule_clip": boolean(False, advanced=True)}
        return {"required": {"clip": ("CLIP",), **switches}, "optional": HOOKS}

    def apply_hooks(self, clip: CLIP, schedule_clip: bool, apply_to_conds: bool, hooks: HookGroup | None = None) -> tuple[CLIP]:
        """A clone of *clip*; *schedule_clip*: encode once per keyframe; *apply_to_conds*: what it encodes also has the hooks."""
        if hooks is None:
            return (clip,)
        clone: Any = clip.clone()
        if apply_to_conds:
            clone.apply_hooks_to_conds = hooks
        clone.patcher.forced_hooks = hooks.clone()
        clone.use_clip_schedule = schedule_clip
        if not schedule_clip:
            clone.patcher.forced_hooks.set_keyframes_on_hooks(None)
        clone.patcher.register_all_hook_patches(hooks, hooks_module.create_target_dict(hooks_module.EnumWeightTarget.Clip))
        return (clone,)


class ConditioningTimestepsRange:
    """Makes a range of the sampling, and those before and after it."""

    EXPERIMENTAL = True
    RETURN_TYPES = ("TIMESTEPS_RANGE", "TIMESTEPS_RANGE", "TIMESTEPS_RANGE")
    RETURN_NAMES = ("TIMESTEPS_RANGE", "BEFORE_RANGE", "AFTER_RANGE")
    CATEGORY = CATEGORY
    FUNCTION = "create_range"
    SEARCH_ALIASES = ["prompt scheduling", "timestep segments", "conditioning phases"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"start_percent": _percent(0.0), "end_percent": _percent(1.0)}}

    def create_range(self, start_percent: float, end_percent: float) -> tuple[tuple[float, float], ...]:
        """The three ranges, as shares of the sampling."""
        return ((start_percent, end_percent), (0.0, start_percent), (end_percent, 1.0))


class SetHookKeyframes(_MakesHooks):
    """Gives hooks strengths that change during the sampling."""

    CATEGORY = f"{CATEGORY}/scheduling"
    FUNCTION = "set_hook_keyframes"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": HOOKS, "optional": {"hook_kf": ("HOOK_KEYFRAMES",)}}

    def set_hook_keyframes(self, hooks: HookGroup, hook_kf: HookKeyframeGroup | None = None) -> tuple[HookGroup]:
        """A clone of *hooks* with *hook_kf*."""
        if hook_kf is None:
            return (hooks,)
        timed = hooks.clone()
        timed.set_keyframes_on_hooks(hook_kf=hook_kf)
        return (timed,)


class CombineHooks(_MakesHooks):
    """Combines hooks."""

    CATEGORY = f"{CATEGORY}/combine"
    FUNCTION = "combine_hooks"
    SEARCH_ALIASES = ["merge hooks"]
    LETTERS = "AB"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {f"hooks_{letter}": ("HOOKS",) for letter in cls.LETTERS}}

    def combine_hooks(
        self,
        hooks_A: HookGroup | None = None,
        hooks_B: HookGroup | None = None,
        hooks_C: HookGroup | None = None,
        hooks_D: HookGroup | None = None,
        hooks_E: HookGroup | None = None,
        hooks_F: HookGroup | None = None,
        hooks_G: HookGroup | None = None,
        hooks_H: HookGroup | None = None,
    ) -> tuple[HookGroup | None]:
        """All given hooks in one group; None without any."""
        given = [hooks_A, hooks_B, hooks_C, hooks_D, hooks_E, hooks_F, hooks_G, hooks_H]
        return (hooks_module.HookGroup.combine_all_hooks(given),)


class CombineHooksFour(CombineHooks):
    """Combines up to four."""

    LETTERS = "ABCD"


class CombineHooksEight(CombineHooks):
    """Combines up to eight."""

    LETTERS = "ABCDEFGH"


_TITLES: dict[type, tuple[str, str]] = {
    CreateHookLora: ("CreateHookLora", "Create Hook LoRA"),
    CreateHookLoraModelOnly: ("CreateHookLoraModelOnly", "Create Hook LoRA (MO)"),
    CreateHookModelAsLora: ("CreateHookModelAsLora", "Create Hook Model as LoRA"),
    CreateHookModelAsLoraModelOnly: ("CreateHookModelAsLoraModelOnly", "Create Hook Model as LoRA (MO)"),
    SetHookKeyframes: ("SetHookKeyframes", "Set Hook Keyframes"),
    **KEYFRAME_NODES,
    CombineHooks: ("CombineHooks2", "Combine Hooks [2]"),
    CombineHooksFour: ("CombineHooks4", "Combine Hooks [4]"),
    CombineHooksEight: ("CombineHooks8", "Combine Hooks [8]"),
    **CONDITIONING_NODES,
    SetClipHooks: ("SetClipHooks", "Set CLIP Hooks"),
    ConditioningTimestepsRange: ("ConditioningTimestepsRange", "Timesteps Range"),
}
NODE_CLASS_MAPPINGS = {node_id: node for node, (node_id, _) in _TITLES.items()}
NODE_DISPLAY_NAME_MAPPINGS = dict(_TITLES.values())
