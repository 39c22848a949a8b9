"""What the components of a patcher need of it and of its module; annotations only."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from comfy.hooks.base import Hook, HookGroup
from comfy.hooks.enums import EnumHookMode
from comfy.patching.patch_table import Patches
from comfy.patching.placement import Backup
from comfy.residency import protocols as residency


class PatchedModule(torch.nn.Module):
    """The attributes of a module that a patcher holds. Modules need not inherit from this; ``ModelPatcher`` sets the state of loading.

    Sizes are bytes. The methods are those of ``BaseModel``; other modules may lack them.
    """

    loaded_device: torch.device
    device: torch.device | None
    model_loaded_weight_memory: int
    model_offload_buffer_memory: int
    model_lowvram: bool
    lowvram_patch_counter: int
    current_weight_patches_uuid: uuid.UUID | None
    current_patcher: Patcher | None
    model_config: Any
    get_dtype: Callable[[], torch.dtype]
    memory_required: Callable[..., float]
    state_dict_for_saving: Callable[..., dict[str, Tensor]]


class CallsBack(Protocol):
    """Whoever keeps callbacks."""

    def get_all_callbacks(self, call_type: str) -> list[Callable[..., Any]]: ...


class Ejectable(CallsBack, Protocol):
    """Whoever can put injections into a module and take them out."""

    skip_injection: bool
    is_injected: bool

    def inject_model(self) -> None: ...

    def eject_model(self) -> None: ...


class RegistersHooks(CallsBack, Protocol):
    """Whoever takes the patches of hooks for a run."""

    model: PatchedModule

    def restore_hook_patches(self) -> None: ...

    def add_hook_patches(
        self, hook: Hook, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]: ...


class Patcher(Ejectable, Protocol):
    """A ``ModelPatcher`` as its components see it. They call its public methods, so that those of subclasses take effect."""

    model: PatchedModule
    load_device: torch.device
    offload_device: torch.device
    patches: Patches

    @property
    def patches_uuid(self) -> uuid.UUID: ...

    clone_base_uuid: uuid.UUID
    hook_patches: dict[Any, Patches]
    weight_wrapper_patches: dict[str, list[Callable[..., Any]]]
    object_patches: dict[str, Any]
    force_cast_weights: bool
    backup: dict[str, Backup]
    backup_buffers: dict[str, Any]
    object_patches_backup: dict[str, Any]
    pinned: set[str]
    hook_backup: dict[str, Any]
    forced_hooks: HookGroup | None

    def use_ejected(self, skip_and_inject_on_exit_only: bool = False) -> AbstractContextManager[None]: ...

    def model_size(self) -> int: ...

    def model_patches_to(self, device: torch.device | torch.dtype) -> None: ...

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, list[Any]]: ...

    def calculate_weight(self, patches: Sequence[Any], weight: Tensor, key: str, intermediate_dtype: torch.dtype = ...) -> Tensor: ...

    def patch_weight_to_device(
        self,
        key: str,
        device_to: torch.device | None = None,
        inplace_update: bool = False,
        return_weight: bool = False,
        force_cast: bool = False,
    ) -> Tensor | None: ...

    def model_state_dict_for_saving(self, model: object = None, prefix: str = "") -> dict[str, Tensor]: ...

    def load(
        self,
        device_to: torch.device | None = None,
        lowvram_model_memory: float = 0,
        force_patch_weights: bool = False,
        full_load: bool = False,
    ) -> None: ...

    def patch_model(
        self,
        device_to: torch.device | None = None,
        lowvram_model_memory: float = 0,
        load_weights: bool = True,
        force_patch_weights: bool = False,
    ) -> PatchedModule: ...

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None: ...

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0, force_patch_weights: bool = False) -> int: ...

    def detach(self, unpatch_all: bool = True) -> PatchedModule: ...

    def pin_weight_to_device(self, key: str) -> None: ...

    def unpin_weight(self, key: str) -> None: ...

    def unpin_all_weights(self) -> None: ...

    def apply_hooks(
        self, hooks: HookGroup | None, transformer_options: dict[str, Any] | None = None, force_apply: bool = False
    ) -> dict[str, Any]: ...

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None: ...


class AdditionalModel(residency.Patcher, Protocol):
    """A patcher that another one brings along: loaded, cloned and copied to other devices with it."""

    def clone(self) -> AdditionalModel: ...

    def get_additional_models(self) -> list[AdditionalModel]: ...

    def deepclone_multigpu(
        self, new_load_device: torch.device | None = None, models_cache: dict[uuid.UUID, AdditionalModel] | None = None
    ) -> AdditionalModel: ...


class CountsMemory(Protocol):
    """Whoever knows how many bytes may still be used."""

    def use(self, weight: Tensor) -> bool: ...


class HookPatcher(Patcher, Protocol):
    """The same as far as switching hooks goes."""

    is_clip: bool
    hook_mode: EnumHookMode
    current_hooks: HookGroup | None
    cached_hook_patches: dict[HookGroup, dict[str, Tensor]]

    def get_combined_hook_patches(self, hooks: HookGroup | None) -> dict[str, list[Any]]: ...

    def patch_hooks(self, hooks: HookGroup | None) -> None: ...

    def patch_hook_weight_to_device(
        self,
        hooks: HookGroup,
        combined_patches: Mapping[str, Sequence[Any]],
        key: str,
        original_weights: dict[str, Any],
        memory_counter: CountsMemory,
    ) -> None: ...

    def patch_cached_hook_weights(self, cached_weights: dict[str, Tensor], key: str, memory_counter: CountsMemory) -> None: ...

    def clear_cached_hook_weights(self) -> None: ...
