"""One view of a model: its module, and the changes that hold while this view is loaded."""

from __future__ import annotations

import copy
import operator
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch

import comfy.model_management
from comfy.hooks.base import Hook, HookGroup
from comfy.hooks.enums import EnumHookMode
from comfy.patcher_extension import CallbacksMP, PatcherInjection, Registry
from comfy.patching.attachments import Attachments, AutoPatcherEjector, call_back, nested_models
from comfy.patching.content_identity import PatchesUUID
from comfy.patching.forwarding import ComponentAttribute, SharedAttribute, forward
from comfy.patching.hook_patches import HookPatches
from comfy.patching.hook_switching import HookSwitching
from comfy.patching.load_list import load_list
from comfy.patching.loading import WeightLoading, prepare_module
from comfy.patching.model_options import ModelOptions, Options, patch_setter
from comfy.patching.model_weights import ModelWeights
from comfy.patching.multigpu import deep_clone, match_clones
from comfy.patching.object_patches import ObjectPatches
from comfy.patching.patch_table import Patches
from comfy.patching.placement import Backup
from comfy.patching.protocols import AdditionalModel, PatchedModule
from comfy.patching.shared_state import Override, SharedState, load_again
from comfy.patching.weight_patches import WeightPatches
from comfy.patching.weight_values import WeightValues

COMPONENTS = ("_options", "_attachments", "_weight_patches", "_hook_patches")
_options: Callable[[ModelPatcher], ModelOptions] = operator.attrgetter("_options")
_attachments: Callable[[ModelPatcher], Attachments] = operator.attrgetter("_attachments")
_weight_patches: Callable[[ModelPatcher], WeightPatches] = operator.attrgetter("_weight_patches")
_hook_patches: Callable[[ModelPatcher], HookPatches] = operator.attrgetter("_hook_patches")


def _object_patches(patcher: ModelPatcher) -> ObjectPatches:
    return ObjectPatches(patcher.model, patcher.object_patches, patcher.object_patches_backup)


class ModelPatcher:
    """*model* with patches, options and attachments, to be computed on *load_device* and kept on *offload_device*.

    Components own its state (options, attachments, patches of weights and of hooks); one more is shared by all clones. What needs the
    module is done by objects made for one operation. All of them call on the patcher what ComfyUI's own code calls on it, so that a
    subclass may override it. ComfyUI's names for all of it are here, one line each.

    Clones share the module and what is loaded of it (``backup`` …), so only one of them is loaded at a time; everything else is
    the clone's own. Cloning copies no tensor. ``parent`` is the patcher this one was cloned from, kept alive by it.
    *size*: the weights' bytes (0: counted when needed). *weight_inplace_update* has no effect. Used by the thread that runs nodes.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        load_device: torch.device,
        offload_device: torch.device,
        size: int = 0,
        weight_inplace_update: bool = False,
    ) -> None:
        self.model = cast(PatchedModule, model)
        self.size = size
        self.load_device = load_device
        self.offload_device = offload_device
        self.weight_inplace_update = weight_inplace_update
        prepare_module(self.model, offload_device)
        self._shared = SharedState()
        self._options = ModelOptions()
        self._attachments = Attachments()
        self._weight_patches = WeightPatches()
        self._hook_patches = HookPatches()
        self.parent: ModelPatcher | None = None
        self.clone_base_uuid = uuid.uuid4()
        self.cached_patcher_init: tuple[Any, ...] | None = None
        self.is_multigpu_base_clone = False

    # The module
    def is_dynamic(self) -> bool:
        """Whether the weights are faulted in on demand: never."""
        return False

    def model_size(self) -> int:
        """Bytes of all weights."""
        if self.size <= 0:
            self.size = comfy.model_management.module_size(self.model)
        return self.size

    def model_dtype(self) -> torch.dtype | None:
        """The dtype of the weights, if the module knows it."""
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None

    def memory_required(self, input_shape: Any) -> float:
        """Bytes of working memory for one call of the model."""
        return self.model.memory_required(input_shape=input_shape)

    def get_free_memory(self, device: torch.device) -> float:
        """Bytes free for activations on *device*."""
        return comfy.model_management.manager().devices.find(device).activation_bytes()

    def loaded_size(self) -> int:
        """Bytes of the weights that are on the device."""
        return self.model.model_loaded_weight_memory

    def lowvram_patch_counter(self) -> int:
        """How many weights are patched at each use."""
        return self.model.lowvram_patch_counter

    def current_loaded_device(self) -> torch.device:
        """Where the module is."""
        return self.model.loaded_device

    def pinned_memory_size(self) -> int:
        """Bytes of page-locked buffers that this patcher owns: none, the pin ledger owns them."""
        return 0

    def loaded_ram_size(self) -> int:
        """Bytes of host memory that could be given up on demand: none."""
        return 0

    def partially_unload_ram(self, ram_to_unload: int) -> int:
        """Give up host memory on demand; there is none to give. Returns the bytes freed."""
        return 0

    @property
    def weights(self) -> ModelWeights:
        """The module's weights by name."""
        return ModelWeights(self.model)

    # Clones
    backup: SharedAttribute[dict[str, Backup]] = SharedAttribute("_shared")
    backup_buffers: SharedAttribute[dict[str, Any]] = SharedAttribute("_shared")
    object_patches_backup: SharedAttribute[dict[str, Any]] = SharedAttribute("_shared")
    pinned: SharedAttribute[set[str]] = SharedAttribute("_shared")
    hook_backup: SharedAttribute[dict[str, Any]] = SharedAttribute("_shared")

    def get_clone_model_override(self) -> tuple[PatchedModule, Override]:
        """The module and what all clones share about it."""
        return self.model, self._shared.as_override()

    def clone(
        self, disable_dynamic: bool = False, model_override: tuple[PatchedModule, Override] | None = None, force_deepcopy: bool = False
    ) -> Self:
        """A patcher with the same changes to the same module, which changes independently.

        *force_deepcopy* loads the module again, through ``cached_patcher_init``; *model_override* is another module to use, as
        ``get_clone_model_override`` returns it. Raises ``RuntimeError`` when the loader left no way to load again.
        """
        if model_override is None:
            model_override = (
                load_again(self.model, self.cached_patcher_init).get_clone_model_override()
                if force_deepcopy
                else self.get_clone_model_override()
            )
        module, shared = model_override
        twin = type(self)(
            module, self.load_device, self.offload_device, self.model_size(), weight_inplace_update=self.weight_inplace_update
        )
        twin._shared = self._shared.overridden(shared, module is self.model)
        twin._options = self._options.clone()
        twin._attachments = self._attachments.clone()
        twin._weight_patches = self._weight_patches.clone()
        twin._hook_patches = self._hook_patches.clone()
        twin.parent = self
        twin.clone_base_uuid = self.clone_base_uuid
        twin.cached_patcher_init = self.cached_patcher_init
        twin.is_multigpu_base_clone = self.is_multigpu_base_clone
        call_back(self, CallbacksMP.ON_CLONE, twin)
        return twin

    def __copy__(self) -> Self:
        """A shallow copy; assigning to its attributes leaves this patcher alone."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__ | {name: copy.copy(getattr(self, name)) for name in COMPONENTS})
        return twin

    deepclone_multigpu = deep_clone
    match_multigpu_clones = match_clones

    def is_clone(self, other: object) -> bool:
        """Whether *other* is a patcher of the same module."""
        return getattr(other, "model", None) is self.model

    def clone_has_same_weights(self, clone: ModelPatcher, allow_multigpu: bool = False) -> bool:
        """Whether loading *clone* after this one would change nothing."""
        same_base = self.clone_base_uuid == clone.clone_base_uuid if allow_multigpu else self.is_clone(clone)
        if not same_base or self.current_hooks is not clone.current_hooks or self.forced_hooks is not clone.forced_hooks:
            return False
        for name in ("hook_patches", "attachments", "additional_models", "injections", "callbacks", "wrappers"):
            if getattr(self, name).keys() != getattr(clone, name).keys():
                return False
        return self.patches_uuid == clone.patches_uuid or not (self.patches or clone.patches)

    # Options
    model_options: ComponentAttribute[Options] = ComponentAttribute("_options", "values")
    disable_model_cfg1_optimization = forward(_options, ModelOptions.disable_cfg1_optimization)
    set_model_sampler_cfg_function = forward(_options, ModelOptions.set_cfg_function)
    set_model_sampler_post_cfg_function = forward(_options, ModelOptions.set_post_cfg_function)
    set_model_sampler_pre_cfg_function = forward(_options, ModelOptions.set_pre_cfg_function)
    set_model_sampler_calc_cond_batch_function = forward(_options, ModelOptions.set_calc_cond_batch_function)
    set_model_unet_function_wrapper = forward(_options, ModelOptions.set_unet_function_wrapper)
    set_model_denoise_mask_function = forward(_options, ModelOptions.set_denoise_mask_function)
    set_model_patch = forward(_options, ModelOptions.set_patch)
    set_model_patch_replace = forward(_options, ModelOptions.set_patch_replace)
    set_model_rope_options = forward(_options, ModelOptions.set_rope_options)
    set_model_optimized_attention = forward(_options, ModelOptions.set_optimized_attention)
    model_patches_to = forward(_options, ModelOptions.move_patches)
    model_patches_models = forward(_options, ModelOptions.patches_models)
    model_patches_call_function = forward(_options, ModelOptions.call_patches)
    set_model_attn1_patch = patch_setter("attn1_patch", "Change the inputs of self-attention.")
    set_model_attn2_patch = patch_setter("attn2_patch", "Change the inputs of cross-attention.")
    set_model_attn1_output_patch = patch_setter("attn1_output_patch", "Change the result of self-attention.")
    set_model_attn2_output_patch = patch_setter("attn2_output_patch", "Change the result of cross-attention.")
    set_model_input_block_patch = patch_setter("input_block_patch", "Change the result of each input block.")
    set_model_input_block_patch_after_skip = patch_setter(
        "input_block_patch_after_skip", "Change the result of each input block after the skip connection took it."
    )
    set_model_output_block_patch = patch_setter("output_block_patch", "Change what goes into each output block.")
    set_model_emb_patch = patch_setter("emb_patch", "Change the time embedding.")
    set_model_forward_timestep_embed_patch = patch_setter(
        "forward_timestep_embed_patch", "Handle layers of a pack's own kinds inside a block."
    )
    set_model_double_block_patch = patch_setter("double_block", "Change the result of each double block of a diffusion transformer.")
    set_model_post_input_patch = patch_setter("post_input", "Change the embedded input of a diffusion transformer.")
    set_model_noise_refiner_patch = patch_setter("noise_refiner", "Change the result of the noise refiner.")
    set_model_middle_block_after_patch = patch_setter("middle_block_after_patch", "Change the result of the middle block.")

    def set_model_attn1_replace(self, patch: Any, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """Replace self-attention in one block."""
        self.set_model_patch_replace(patch, "attn1", block_name, number, transformer_index)

    def set_model_attn2_replace(self, patch: Any, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """Replace cross-attention in one block."""
        self.set_model_patch_replace(patch, "attn2", block_name, number, transformer_index)

    # What node packs attach
    callbacks: ComponentAttribute[Registry] = ComponentAttribute("_attachments")
    wrappers: ComponentAttribute[Registry] = ComponentAttribute("_attachments")
    injections: ComponentAttribute[dict[Any, list[PatcherInjection]]] = ComponentAttribute("_attachments")
    attachments: ComponentAttribute[dict[Any, Any]] = ComponentAttribute("_attachments")
    additional_models: ComponentAttribute[dict[Any, list[AdditionalModel]]] = ComponentAttribute("_attachments")
    is_injected: ComponentAttribute[bool] = ComponentAttribute("_attachments")
    skip_injection: ComponentAttribute[bool] = ComponentAttribute("_attachments")
    add_callback_with_key = forward(_attachments, Attachments.add_callback_with_key)
    remove_callbacks_with_key = forward(_attachments, Attachments.remove_callbacks_with_key)
    get_callbacks = forward(_attachments, Attachments.get_callbacks)
    get_all_callbacks = forward(_attachments, Attachments.get_all_callbacks)
    add_wrapper_with_key = forward(_attachments, Attachments.add_wrapper_with_key)
    remove_wrappers_with_key = forward(_attachments, Attachments.remove_wrappers_with_key)
    get_wrappers = forward(_attachments, Attachments.get_wrappers)
    get_all_wrappers = forward(_attachments, Attachments.get_all_wrappers)
    set_attachments = forward(_attachments, Attachments.set_attachments)
    remove_attachments = forward(_attachments, Attachments.remove_attachments)
    get_attachment = forward(_attachments, Attachments.get_attachment)
    set_additional_models = forward(_attachments, Attachments.set_additional_models)
    remove_additional_models = forward(_attachments, Attachments.remove_additional_models)
    get_additional_models_with_key = forward(_attachments, Attachments.get_additional_models_with_key)
    get_additional_models = forward(_attachments, Attachments.get_additional_models)
    set_injections = forward(_attachments, Attachments.set_injections)
    remove_injections = forward(_attachments, Attachments.remove_injections)
    get_injections = forward(_attachments, Attachments.get_injections)

    def add_callback(self, call_type: str, callback: Callable[..., Any]) -> None:
        """Call *callback* at a moment named in ``CallbacksMP``."""
        self.add_callback_with_key(call_type, None, callback)

    def add_wrapper(self, wrapper_type: str, wrapper: Callable[..., Any]) -> None:
        """Wrap a function named in ``WrappersMP``."""
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def get_nested_additional_models(self) -> list[AdditionalModel]:
        """The additional models, theirs, and so on; each once, nearest first."""
        return nested_models(self.get_additional_models())

    def use_ejected(self, skip_and_inject_on_exit_only: bool = False) -> AutoPatcherEjector:
        """A ``with`` block in which the injections are out of the module."""
        return AutoPatcherEjector(self, skip_and_inject_on_exit_only)

    def inject_model(self) -> None:
        """Put the injections into the module, unless they are there."""
        self._attachments.inject(self)

    def eject_model(self) -> None:
        """Take the injections out of the module, if they are there."""
        self._attachments.eject(self)

    # Patches of weights and objects
    patches: ComponentAttribute[Patches] = ComponentAttribute("_weight_patches")
    patches_uuid = PatchesUUID()
    weight_wrapper_patches: ComponentAttribute[dict[str, list[Callable[..., Any]]]] = ComponentAttribute("_weight_patches")
    force_cast_weights: ComponentAttribute[bool] = ComponentAttribute("_weight_patches")
    object_patches: ComponentAttribute[dict[str, Any]] = ComponentAttribute("_weight_patches")
    add_weight_wrapper = forward(_weight_patches, WeightPatches.add_wrapper)
    add_object_patch = forward(_weight_patches, WeightPatches.add_object_patch)
    get_model_object = forward(_object_patches, ObjectPatches.get)
    get_key_patches = forward(WeightValues, WeightValues.key_patches)
    model_state_dict = forward(WeightValues, WeightValues.state_dict)
    model_state_dict_for_saving = forward(WeightValues, WeightValues.state_dict_for_saving)
    state_dict_for_saving = forward(WeightValues, WeightValues.checkpoint_for_saving)
    calculate_weight = forward(WeightValues, WeightValues.calculate)
    patch_weight_to_device = forward(WeightValues, WeightValues.patch_to_device)

    def add_patches(self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]:
        """Add *patches* by weight name, or by (name, (dim, start, length)[, function]) for a slice.

        The weight becomes ``strength_model * weight + function(strength_patch * patch)``. Returns the keys whose weight exists.
        """
        with self.use_ejected():
            return self._weight_patches.add(set(self.weights.keys()), patches, strength_patch, strength_model)

    def set_model_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """Compute in *dtype*, casting weights at each call (None: in the dtype they have)."""
        self.add_object_patch("manual_cast_dtype", dtype)
        if dtype is not None:
            self.force_cast_weights = True
        self._weight_patches.note_change()

    # Loading
    load = forward(WeightLoading, WeightLoading.load)
    patch_model = forward(WeightLoading, WeightLoading.patch_model)
    unpatch_model = forward(WeightLoading, WeightLoading.unpatch_model)
    partially_load = forward(WeightLoading, WeightLoading.partially_load)
    partially_unload = forward(WeightLoading, WeightLoading.partially_unload)
    detach = forward(WeightLoading, WeightLoading.detach)
    pin_weight_to_device = forward(WeightLoading, WeightLoading.pin_weight)
    unpin_weight = forward(WeightLoading, WeightLoading.unpin_weight)
    unpin_all_weights = forward(WeightLoading, WeightLoading.unpin_all_weights)
    pristine_weights = forward(WeightLoading, WeightLoading.pristine_weights)
    weights_to_send = forward(WeightLoading, WeightLoading.weights_to_send)

    # Hooks
    hook_patches: ComponentAttribute[dict[Any, Patches]] = ComponentAttribute("_hook_patches")
    hook_patches_backup: ComponentAttribute[dict[Any, Patches] | None] = ComponentAttribute("_hook_patches")
    cached_hook_patches: ComponentAttribute[dict[HookGroup, dict[str, torch.Tensor]]] = ComponentAttribute("_hook_patches")
    current_hooks: ComponentAttribute[HookGroup | None] = ComponentAttribute("_hook_patches")
    forced_hooks: ComponentAttribute[HookGroup | None] = ComponentAttribute("_hook_patches")
    hook_mode: ComponentAttribute[EnumHookMode] = ComponentAttribute("_hook_patches")
    is_clip: ComponentAttribute[bool] = ComponentAttribute("_hook_patches")
    set_hook_mode = forward(_hook_patches, HookPatches.set_mode)
    restore_hook_patches = forward(_hook_patches, HookPatches.restore)
    get_combined_hook_patches = forward(_hook_patches, HookPatches.combined)
    prepare_hook_patches_current_keyframe = forward(HookSwitching, HookSwitching.prepare_keyframe)
    apply_hooks = forward(HookSwitching, HookSwitching.apply)
    patch_hooks = forward(HookSwitching, HookSwitching.patch)
    unpatch_hooks = forward(HookSwitching, HookSwitching.unpatch)
    patch_hook_weight_to_device = forward(HookSwitching, HookSwitching.patch_weight)
    patch_cached_hook_weights = forward(HookSwitching, HookSwitching.put_cached)
    clear_cached_hook_weights = forward(HookSwitching, HookSwitching.clear_cache)
    clean_hooks = forward(HookSwitching, HookSwitching.clean)

    def add_hook_patches(
        self, hook: Hook, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[Any]:
        """Like ``add_patches``, for when *hook* is active. Returns the keys whose weight exists."""
        with self.use_ejected():
            taken = self._hook_patches.add(hook, set(self.weights.keys()), patches, strength_patch, strength_model)
            self._weight_patches.note_change()
        return taken

    def register_all_hook_patches(
        self, hooks: HookGroup, target_dict: dict[str, Any], model_options: Options | None = None, registered: HookGroup | None = None
    ) -> HookGroup:
        """Let the weight hooks of *hooks* that are new here add their patches for this run. Returns all that are registered."""
        return self._hook_patches.register(self, hooks, target_dict, model_options, registered)

    # Sampling
    def pre_run(self) -> None:
        """Called before sampling."""
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = self
        call_back(self, CallbacksMP.ON_PRE_RUN)

    def prepare_state(self, timestep: Any, model_options: Options) -> None:
        """Called before each step."""
        call_back(self, CallbacksMP.ON_PREPARE_STATE, timestep, model_options)

    def cleanup(self) -> None:
        """Called after sampling."""
        self.model_patches_call_function(function_name="cleanup")
        self.clean_hooks()
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = None
        call_back(self, CallbacksMP.ON_CLEANUP)

    _load_list = load_list

    def __del__(self) -> None:
        if getattr(self, "is_injected", False):  # the module lives on in other clones and must not keep this one's injections
            self.eject_model()


CoreModelPatcher: Callable[..., ModelPatcher] = ModelPatcher
ModelPatcherDynamic = ModelPatcher
