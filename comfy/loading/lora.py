"""Applying a LoRA file to a diffusion model and its text encoders."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

import comfy.lora
import comfy.lora_convert
from comfy.loading.lora_fit import fitting_changes
from comfy.patcher_extension import PatcherInjection
from comfy.patching.model_weights import ModelWeights
from comfy.patching.patched_models import patched_models
from comfy.weight_adapter.bypass import LAYERS, can_bypass, create_bypass_injections_from_patches, layer_of
from comfy.weight_files.state_dicts import FileTensors

log = logging.getLogger(__name__)


class TakesPatches(Protocol):
    """What can be cloned and given weight patches: a patcher, or text encoders."""

    def clone(self) -> Self: ...

    def add_patches(self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]: ...


class Patcher(TakesPatches, Protocol):
    """A ``ModelPatcher`` as LoRA files need it."""

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def weights(self) -> ModelWeights: ...

    def get_model_object(self, name: str) -> Any: ...

    def set_attachments(self, key: Any, attachment: Any) -> None: ...

    def get_injections(self, key: Any) -> list[PatcherInjection] | None: ...

    def set_injections(self, key: Any, injections: list[PatcherInjection]) -> None: ...


class TextEncoders(TakesPatches, Protocol):
    """A ``CLIP`` as LoRA files need it."""

    @property
    def patcher(self) -> Patcher: ...

    @property
    def cond_stage_model(self) -> torch.nn.Module: ...


Model = TypeVar("Model", bound=Patcher)
Clip = TypeVar("Clip", bound=TextEncoders)
Target = TypeVar("Target", bound=TakesPatches)


def load_lora_for_models(
    model: Model | None, clip: Clip | None, lora: dict[str, Tensor], strength_model: float, strength_clip: float, lora_metadata: Any = None
) -> tuple[Model | None, Clip | None]:
    """Clones of *model* and *clip* (each may be None) with the tensors *lora* as patches.

    *lora_metadata*, if given, is attached to both as ``lora_metadata``. What fits neither is named in one log line.
    """
    changes = _Changes(model, clip, lora, lora_metadata)
    new_model = None if model is None else changes.added_to(model, strength_model)
    new_clip = None if clip is None else changes.added_to(clip, strength_clip)
    changes.log_unused()
    return new_model, new_clip


class _Changes:
    """The patches that *lora* has for *model* and *clip*, looked up when the first of them is to be patched anew."""

    def __init__(self, model: Patcher | None, clip: TextEncoders | None, lora: dict[str, Tensor], metadata: Any) -> None:
        self._model, self._clip, self._lora, self._metadata = model, clip, lora, metadata
        self._taken: set[Any] = set()
        self._targets = self._built = 0

    @functools.cached_property
    def _patches(self) -> dict[Any, Any]:
        return _patches_for(self._model, self._clip, self._lora)

    def added_to(self, target: Target, strength: float) -> Target:
        """A clone of *target* with the patches: the former one, where the same file was added to an equal target as strongly."""
        self._targets += 1
        build = _Build(self, strength)
        key = getattr(self._lora, "key", None)
        if key is None:
            clone = target.clone()
            build(clone)
            return clone
        both = (self._model is not None, self._clip is not None)
        return patched_models().patched(target, (key, strength, both, self._metadata), build)

    def add(self, clone: Any, strength: float) -> None:
        """Add the patches to *clone*."""
        self._built += 1
        self._taken.update(clone.add_patches(self._patches, strength))
        if self._metadata:
            getattr(clone, "patcher", clone).set_attachments("lora_metadata", self._metadata)

    def log_unused(self) -> None:
        """Name what fits neither, if both were patched anew."""
        if self._built == self._targets:
            _log_unused(self._patches, self._taken)


class _Build:
    """Adds changes to a clone. What tells one from another is given to the registry beside it."""

    def __init__(self, changes: _Changes, strength: float) -> None:
        self._changes, self._strength = changes, strength

    def patch_identity_key(self) -> tuple[()]:
        """Nothing of its own."""
        return ()

    def __call__(self, clone: Any) -> None:
        self._changes.add(clone, self._strength)


def load_bypass_lora_for_models(
    model: Model | None, clip: Clip | None, lora: dict[str, Tensor], strength_model: float, strength_clip: float
) -> tuple[Model | None, Clip | None]:
    """The same without touching weights where possible: the changes are added to the layers' results.

    Changes that do more than add to the weight of one linear layer or convolution are applied as ordinary patches.
    """
    patches = _patches_for(model, clip, lora)
    taken: set[Any] = set()
    new_model = None if model is None else model.clone()
    if new_model is not None:
        taken.update(_bypass(new_model, patches, strength_model))
    new_clip = None if clip is None else clip.clone()
    if new_clip is not None:
        taken.update(_bypass(new_clip.patcher, patches, strength_clip))
    _log_unused(patches, taken)
    return new_model, new_clip


def _bypass(patcher: Patcher, patches: dict[Any, Any], strength: float) -> list[Any]:
    weights = patcher.weights
    known = set(weights.keys())
    beside = {
        key: patch
        for key, patch in patches.items()
        if key in known and can_bypass(patch) and weights.is_whole(key) and isinstance(layer_of(patcher, key), LAYERS)
    }
    if beside:
        injections = patcher.get_injections("bypass_lora") or []
        patcher.set_injections("bypass_lora", [*injections, *create_bypass_injections_from_patches(patcher, beside, strength)])
    return [*beside, *patcher.add_patches({key: patch for key, patch in patches.items() if key not in beside}, strength)]


def _patches_for(model: Patcher | None, clip: TextEncoders | None, lora: dict[str, Tensor]) -> dict[Any, Any]:
    """The changes of *lora* that fit a weight; those whose shapes do not are left out with one log line."""
    tensors = _tensors_of(lora)
    key_map: dict[Any, Any] = {}
    if model is not None:
        key_map = comfy.lora.model_lora_keys_unet(model.model, key_map)
    if clip is not None:
        key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, key_map)
    with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode do not tell of changes
        patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(tensors), key_map)
    modules = [*([] if model is None else [model.model]), *([] if clip is None else [clip.cond_stage_model])]
    return fitting_changes(patches, modules, tensors.path)


def _tensors_of(lora: Mapping[Any, Any]) -> FileTensors:
    """The tensors of *lora* by name, without what else a pickled file may hold, which one log line names."""
    path = getattr(lora, "path", "the LoRA")
    tensors = {key: value for key, value in lora.items() if isinstance(key, str) and isinstance(value, Tensor)}
    others = [repr(key) for key in lora if key not in tensors]
    if others:
        log.warning("%s: %d entries are no tensors and are not used, such as %s", path, len(others), others[0])
    return FileTensors(tensors, path)


def _log_unused(patches: dict[Any, Any], taken: set[Any]) -> None:
    unused = [key for key in patches if key not in taken]
    if unused:
        log.warning("%d of %d changes of the LoRA fit no weight, such as %s", len(unused), len(patches), unused[0])
