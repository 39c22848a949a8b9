"""One view of a model: its module, and the changes that hold while this view is loaded."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import torch

import comfy.model_management
from comfy.hooks.enums import EnumHookMode
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.patching.hook_patching import HookPatching, create_hook_patches_clone
from comfy.patching.loading import note_device
from comfy.patching.model_options import OptionSetters, copy_containers
from comfy.patching.patch_table import PatchTable

LOADED_STATE = {
    "model_loaded_weight_memory": 0,
    "lowvram_patch_counter": 0,
    "model_lowvram": False,
    "current_weight_patches_uuid": None,
    "model_offload_buffer_memory": 0,
}


class ModelPatcher(OptionSetters, HookPatching):
    """*model* with patches, options and attachments, to be computed on *load_device* and kept on *offload_device*.

    Clones share the module and what is loaded of it (``backup`` …), so only one of them is loaded at a time; everything else is
    the clone's own. Cloning copies no tensor. ``parent`` is the patcher this one was cloned from, kept alive by it.
    *size* is the weights' bytes (0: counted when needed). *weight_inplace_update* has no effect: weights are never written in
    place. Used by the thread that runs nodes.
    """

    def __init__(
        self, model: Any, load_device: torch.device, offload_device: torch.device, size: int = 0, weight_inplace_update: bool = False
    ) -> None:
        self.model = model
        self.size = size
        self.load_device = load_device
        self.offload_device = offload_device
        self.weight_inplace_update = weight_inplace_update
        if getattr(model, "loaded_device", None) is None:
            note_device(model, getattr(model, "device", None) or offload_device)
        for name, value in LOADED_STATE.items():
            if not hasattr(model, name):
                setattr(model, name, value)
        self.parent: ModelPatcher | None = None
        self.model_options = {"transformer_options": {}}
        self.patches = PatchTable()
        self.patches_uuid = uuid.uuid4()
        self.clone_base_uuid = uuid.uuid4()
        self.weight_wrapper_patches = {}
        self.force_cast_weights = False
        self.object_patches = {}
        self.backup, self.backup_buffers, self.object_patches_backup, self.pinned = {}, {}, {}, set()
        self.attachments = {}
        self.additional_models = {}
        self.callbacks = CallbacksMP.init_callbacks()
        self.wrappers = WrappersMP.init_wrappers()
        self.injections = {}
        self.is_injected = False
        self.skip_injection = False
        self.hook_patches = {}
        self.hook_patches_backup = None
        self.hook_backup = {}
        self.cached_hook_patches = {}
        self.current_hooks = None
        self.forced_hooks = None
        self.is_clip = False
        self.hook_mode = EnumHookMode.MaxSpeed
        self.cached_patcher_init: tuple[Any, ...] | None = None
        self.is_multigpu_base_clone = False

    def is_dynamic(self) -> bool:
        """Whether the weights are faulted in on demand. Never here."""
        return False

    def model_size(self) -> int:
        """Bytes of all weights."""
        if self.size <= 0:
            self.size = comfy.model_management.module_size(self.model)
        return self.size

    def model_dtype(self) -> torch.dtype | None:
        """The dtype of the weights as kept, if the module knows it."""
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None

    def memory_required(self, input_shape: Any) -> float:
        """Bytes of working memory for one call of the model."""
        return self.model.memory_required(input_shape=input_shape)

    def get_free_memory(self, device: torch.device) -> float:
        """Bytes free for activations on *device*."""
        return comfy.model_management.manager().devices.find(device).activation_bytes()

    def get_clone_model_override(self) -> tuple[Any, tuple[Any, ...]]:
        """The module and what all clones share about it."""
        return self.model, (self.backup, self.backup_buffers, self.object_patches_backup, self.pinned)

    def clone(
        self, disable_dynamic: bool = False, model_override: tuple[Any, tuple[Any, ...]] | None = None, force_deepcopy: bool = False
    ) -> Any:
        """A patcher with the same changes to the same module, which changes independently.

        *force_deepcopy* loads the module again, through ``cached_patcher_init``; *model_override* is another module to use, as
        ``get_clone_model_override`` returns it. Raises ``RuntimeError`` when the loader left no way to load again.
        """
        if model_override is None:
            model_override = self._load_again().get_clone_model_override() if force_deepcopy else self.get_clone_model_override()
        module, shared = model_override
        twin = type(self)(module, self.load_device, self.offload_device, self.model_size(), self.weight_inplace_update)
        twin.backup, twin.backup_buffers, twin.object_patches_backup, twin.pinned = shared
        twin.parent = self
        twin.patches = self.patches.fork() if isinstance(self.patches, PatchTable) else PatchTable(self.patches)
        twin.model_options = copy_containers(self.model_options)
        for name in (
            "patches_uuid",
            "clone_base_uuid",
            "force_cast_weights",
            "skip_injection",
            "is_clip",
            "hook_mode",
            "cached_patcher_init",
            "is_multigpu_base_clone",
        ):
            setattr(twin, name, getattr(self, name))
        for name in ("object_patches", "weight_wrapper_patches", "callbacks", "wrappers", "injections", "cached_hook_patches"):
            setattr(twin, name, copy_containers(getattr(self, name)) if name != "object_patches" else dict(self.object_patches))
        twin.attachments = {
            key: value.on_model_patcher_clone() if hasattr(value, "on_model_patcher_clone") else value
            for key, value in self.attachments.items()
        }
        twin.additional_models = {key: [model.clone() for model in models] for key, models in self.additional_models.items()}
        twin.hook_patches = create_hook_patches_clone(self.hook_patches)
        if self.hook_patches_backup is not None:
            twin.hook_patches_backup = create_hook_patches_clone(self.hook_patches_backup)
        if module is self.model:
            twin.hook_backup = self.hook_backup
        twin.current_hooks = self.current_hooks.clone() if self.current_hooks else self.current_hooks
        twin.forced_hooks = self.forced_hooks.clone() if self.forced_hooks else self.forced_hooks
        self._call_back(CallbacksMP.ON_CLONE, twin)
        return twin

    def _load_again(self) -> Any:
        if self.cached_patcher_init is None:
            raise RuntimeError(
                f"cannot load {type(self.model).__name__} a second time: its loader set no cached_patcher_init; use a core loader node"
            )
        make, arguments, *index = self.cached_patcher_init
        made = make(*arguments)
        return made[index[0]] if index else made

    def deepclone_multigpu(self, new_load_device: torch.device | None = None, models_cache: dict[uuid.UUID, Any] | None = None) -> Any:
        """A clone over weights of its own, for another device; additional models likewise, each once."""
        cache = {} if models_cache is None else models_cache
        twin = self.clone(force_deepcopy=True)
        twin.load_device = self.load_device if new_load_device is None else new_load_device
        twin.remove_additional_models("multigpu")
        for models in twin.additional_models.values():
            for position, model in enumerate(models):
                if model.clone_base_uuid not in cache:
                    cache[model.clone_base_uuid] = model.deepclone_multigpu(new_load_device, cache)
                models[position] = cache[model.clone_base_uuid]
        self._call_back(CallbacksMP.ON_DEEPCLONE_MULTIGPU, twin)
        return twin

    def is_clone(self, other: Any) -> bool:
        """Whether *other* is a patcher of the same module."""
        return getattr(other, "model", None) is self.model

    def clone_has_same_weights(self, clone: Any, allow_multigpu: bool = False) -> bool:
        """Whether loading *clone* after this one would change nothing."""
        same_base = self.clone_base_uuid == clone.clone_base_uuid if allow_multigpu else self.is_clone(clone)
        if not same_base or self.current_hooks is not clone.current_hooks or self.forced_hooks is not clone.forced_hooks:
            return False
        for name in ("hook_patches", "attachments", "additional_models", "injections", "callbacks", "wrappers"):
            if getattr(self, name).keys() != getattr(clone, name).keys():
                return False
        return self.patches_uuid == clone.patches_uuid or not (self.patches or clone.patches)

    def set_model_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """Compute in *dtype*, casting weights at each call (None: in the kept dtype)."""
        self.add_object_patch("manual_cast_dtype", dtype)
        if dtype is not None:
            self.force_cast_weights = True
        self._patches_changed()

    def pre_run(self) -> None:
        """Called before sampling."""
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = self
        self._call_back(CallbacksMP.ON_PRE_RUN)

    def prepare_state(self, timestep: Any, model_options: dict[str, Any]) -> None:
        """Called before each step."""
        self._call_back(CallbacksMP.ON_PREPARE_STATE, timestep, model_options)

    def cleanup(self) -> None:
        """Called after sampling."""
        self.model_patches_call_function(function_name="cleanup")
        self.clean_hooks()
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = None
        self._call_back(CallbacksMP.ON_CLEANUP)

    def pinned_memory_size(self) -> int:
        """Bytes of page-locked buffers this patcher owns. None: the pin ledger does."""
        return 0

    def loaded_ram_size(self) -> int:
        """Bytes of host memory that could be given up on demand. None here."""
        return 0

    def partially_unload_ram(self, ram_to_unload: int) -> int:
        """Give up host memory on demand. Nothing here."""
        return 0

    def __del__(self) -> None:
        if getattr(self, "is_injected", False):  # the module lives on in other clones and must not keep this one's injections
            self.eject_model()


CoreModelPatcher: Callable[..., ModelPatcher] = ModelPatcher
ModelPatcherDynamic = ModelPatcher
