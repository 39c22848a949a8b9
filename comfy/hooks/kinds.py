"""The kinds of hooks: LoRA weights, options and further models that act only on the conditioning they are attached to."""

from __future__ import annotations

import logging
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor, nn

import comfy.patcher_extension
from comfy.hooks.base import Hook, Hooked, HookGroup, group_of
from comfy.hooks.enums import EnumHookScope, EnumHookType, EnumWeightTarget
from comfy.loading.lora_changes import lora_changes
from comfy.loading.lora_fit import fitting_changes
from comfy.patcher_extension import PatcherInjection

log = logging.getLogger(__name__)


class HookedModel(Hooked, Protocol):
    """A ``ModelPatcher`` as hooks of LoRA files need it."""

    def clone(self) -> Self: ...


class HookedClip(Protocol):
    """A ``CLIP`` as hooks of LoRA files need it."""

    @property
    def cond_stage_model(self) -> nn.Module: ...

    @property
    def patcher(self) -> Hooked: ...

    def clone(self) -> Self: ...


class HasWeights(Protocol):
    """A ``ModelPatcher`` whose weights can be read."""

    def model_state_dict(self) -> dict[str, Tensor]: ...


class KnowsItsPart(Protocol):
    """A ``ModelPatcher`` that says whether it belongs to a text encoder."""

    is_clip: bool


Model = TypeVar("Model", bound=HookedModel)
Clip = TypeVar("Clip", bound=HookedClip)


def create_target_dict(target: EnumWeightTarget | None = None, **kwargs: Any) -> dict[str, Any]:
    """The description of the target that hooks get when they are registered."""
    return {**({} if target is None else {"target": target}), **kwargs}


class WeightHook(Hook):
    """Adds weights: a LoRA's tensors from a file or, with ``need_weight_init`` false, {weight name: patch}."""

    def __init__(self, strength_model: float = 1.0, strength_clip: float = 1.0) -> None:
        super().__init__(hook_type=EnumHookType.Weight, hook_scope=EnumHookScope.HookedOnly)
        self.weights: dict[str, Any] | None = None
        self.weights_clip: dict[str, Any] | None = None
        self.need_weight_init = True
        self._strength_model = strength_model
        self._strength_clip = strength_clip

    @property
    def strength_model(self) -> float:
        """The strength for the diffusion model at the current step."""
        return self._strength_model * self.strength

    @property
    def strength_clip(self) -> float:
        """The strength for the text encoder at the current step."""
        return self._strength_clip * self.strength

    def add_hook_patches(self, model: Hooked, model_options: dict[str, Any], target_dict: dict[str, Any], registered: HookGroup) -> bool:
        """Give *model* the patches that fit, and name the others in the log; returns whether the hook acts in this run."""
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        for_clip = target_dict.get("target") == EnumWeightTarget.Clip
        if self.need_weight_init:
            diffusion, text = (None, model.model) if for_clip else (model.model, None)
            patches = lora_changes(self.weights or {}, diffusion, text, log_missing=False)
        else:
            given = (self.weights_clip if for_clip else self.weights) or {}
            patches = fitting_changes(given, [model.model], getattr(self.weights, "path", "a hook's weights"))
        model.add_hook_patches(hook=self, patches=patches, strength_patch=self._strength_clip if for_clip else self._strength_model)
        registered.add(self)
        return True


class ObjectPatchHook(Hook):
    """Replaces objects in the model. Node packs may pass it on, but it cannot be registered."""

    def __init__(self, object_patches: dict[str, Any] | None = None, hook_scope: EnumHookScope = EnumHookScope.AllConditioning) -> None:
        super().__init__(hook_type=EnumHookType.ObjectPatch, hook_scope=hook_scope)
        self.object_patches = object_patches


class AdditionalModelsHook(Hook):
    """Loads further models for the run."""

    def __init__(self, models: list[Any] | None = None, key: str | None = None) -> None:
        super().__init__(hook_type=EnumHookType.AdditionalModels)
        self.models = models
        self.key = key

    def clone(self) -> Self:
        twin = super().clone()
        twin.models = list(self.models) if self.models else self.models
        return twin

    def add_hook_patches(self, model: Hooked, model_options: dict[str, Any], target_dict: dict[str, Any], registered: HookGroup) -> bool:
        """Register only; the sampler asks for the models."""
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        registered.add(self)
        return True


class TransformerOptionsHook(Hook):
    """Adds to ``transformer_options``: patches, wrappers, callbacks."""

    def __init__(self, transformers_dict: dict[str, Any] | None = None, hook_scope: EnumHookScope = EnumHookScope.AllConditioning) -> None:
        super().__init__(hook_type=EnumHookType.TransformerOptions, hook_scope=hook_scope)
        self.transformers_dict = transformers_dict
        self._skip_adding = False

    def add_hook_patches(self, model: Hooked, model_options: dict[str, Any], target_dict: dict[str, Any], registered: HookGroup) -> bool:
        """Merge the options that act on all conditioning into *model_options*; others are added when their conditioning is computed."""
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        added: dict[str, Any] = {"to_load_options": self.transformers_dict}
        self._skip_adding = self.hook_scope == EnumHookScope.AllConditioning
        if self._skip_adding:
            added["transformer_options"] = self.transformers_dict
        registered.add(self)
        comfy.patcher_extension.merge_nested_dicts(model_options, added, copy_dict1=False)
        return True

    def on_apply_hooks(self, model: object, transformer_options: dict[str, Any]) -> None:
        """Merge the options into those of one call, unless they were merged for the whole run."""
        if not self._skip_adding:
            comfy.patcher_extension.merge_nested_dicts(transformer_options, self.transformers_dict or {}, copy_dict1=False)


WrapperHook = TransformerOptionsHook


class InjectionsHook(Hook):
    """Injects into the model. Node packs may pass it on, but it cannot be registered."""

    def __init__(
        self,
        key: str | None = None,
        injections: list[PatcherInjection] | None = None,
        hook_scope: EnumHookScope = EnumHookScope.AllConditioning,
    ) -> None:
        super().__init__(hook_type=EnumHookType.Injections, hook_scope=hook_scope)
        self.key = key
        self.injections = injections

    def clone(self) -> Self:
        twin = super().clone()
        twin.injections = list(self.injections) if self.injections else self.injections
        return twin


def create_transformer_options_from_hooks(
    model: KnowsItsPart, hooks: HookGroup | None, transformer_options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """*transformer_options* with the options that *hooks* add; empty for text encoders and without hooks."""
    if hooks is None or model.is_clip:
        return {}
    options = {} if transformer_options is None else transformer_options
    for hook in hooks.get_type(EnumHookType.TransformerOptions):
        hook.on_apply_hooks(model, options)
    return options


def create_hook_lora(lora: dict[str, Tensor], strength_model: float, strength_clip: float) -> HookGroup:
    """A group with one hook for the LoRA tensors *lora*."""
    hook = WeightHook(strength_model=strength_model, strength_clip=strength_clip)
    hook.weights = lora
    return group_of([hook])


def create_hook_model_as_lora(
    weights_model: dict[str, Tensor] | None, weights_clip: dict[str, Tensor] | None, strength_model: float, strength_clip: float
) -> HookGroup:
    """A group with one hook that moves weights towards those of another model."""
    hook = WeightHook(strength_model=strength_model, strength_clip=strength_clip)
    hook.weights = None if weights_model is None else {key: ("model_as_lora", (value,)) for key, value in weights_model.items()}
    hook.weights_clip = None if weights_clip is None else {key: ("model_as_lora", (value,)) for key, value in weights_clip.items()}
    hook.need_weight_init = False
    return group_of([hook])


def get_patch_weights_from_model(model: HasWeights | None, discard_model_sampling: bool = True) -> dict[str, Tensor] | None:
    """{name: weight} of the patcher *model* for :func:`create_hook_model_as_lora`; None without a model."""
    if model is None:
        return None
    return {
        key: value for key, value in model.model_state_dict().items() if not (discard_model_sampling and key.startswith("model_sampling"))
    }


def load_hook_lora_for_models(
    model: Model | None, clip: Clip | None, lora: dict[str, Tensor], strength_model: float, strength_clip: float
) -> tuple[Model | None, Clip | None, HookGroup]:
    """Clones of *model* and *clip* (each may be None) that have the patches of a LoRA as a hook, and the group of that hook.

    Changes whose shapes do not fit are left out and named in the log.
    """
    hook = WeightHook()
    patches = lora_changes(lora, None if model is None else model.model, None if clip is None else clip.cond_stage_model)
    taken: set[Any] = set()
    new_model = None if model is None else model.clone()
    if new_model is not None:
        taken.update(new_model.add_hook_patches(hook=hook, patches=patches, strength_patch=strength_model))
    new_clip = None if clip is None else clip.clone()
    if new_clip is not None:
        taken.update(new_clip.patcher.add_hook_patches(hook=hook, patches=patches, strength_patch=strength_clip))
    unused = [key for key in patches if key not in taken]
    if unused:
        log.warning("%d patches of the LoRA fit neither the model nor the text encoder, such as %s", len(unused), unused[0])
    return new_model, new_clip, group_of([hook])
