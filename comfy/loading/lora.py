"""Applying a LoRA file to a diffusion model and its text encoders."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from comfy.loading.lora_changes import lora_changes
from comfy.patcher_extension import PatcherInjection
from comfy.patching.model_weights import ModelWeights
from comfy.patching.patched_models import patched_models
from comfy.weight_adapter.bypass import LAYERS, can_bypass, create_bypass_injections_from_patches, layer_of

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
    return _Changes(model, clip, lora, lora_metadata, _add).added(strength_model, strength_clip)


def load_bypass_lora_for_models(
    model: Model | None, clip: Clip | None, lora: dict[str, Tensor], strength_model: float, strength_clip: float
) -> tuple[Model | None, Clip | None]:
    """The same without touching weights where possible: the changes are added to the layers' results.

    Changes that do more than add to the weight of one linear layer or convolution are applied as ordinary patches.
    """
    return _Changes(model, clip, lora, None, _bypass).added(strength_model, strength_clip)


Add = Callable[[Any, Mapping[Any, Any], float], list[Any]]


class _Changes(Generic[Model, Clip]):
    """The patches that *lora* has for *model* and *clip*, looked up when the first of them is to be patched anew; *add* adds them."""

    def __init__(self, model: Model | None, clip: Clip | None, lora: dict[str, Tensor], metadata: Any, add: Add) -> None:
        self._model, self._clip, self._lora, self._metadata, self._add = model, clip, lora, metadata, add
        self._taken: set[Any] = set()
        self._built = 0

    @functools.cached_property
    def _patches(self) -> Mapping[Any, Any]:
        model = None if self._model is None else self._model.model
        return lora_changes(self._lora, model, None if self._clip is None else self._clip.cond_stage_model)

    def added(self, strength_model: float, strength_clip: float) -> tuple[Model | None, Clip | None]:
        """Clones with the patches. Names what fits neither, if both were patched anew."""
        model = None if self._model is None else self._added_to(self._model, strength_model)
        clip = None if self._clip is None else self._added_to(self._clip, strength_clip)
        if self._built == (model is not None) + (clip is not None):
            _log_unused(self._patches, self._taken)
        return model, clip

    def _added_to(self, target: Target, strength: float) -> Target:
        """A clone of *target* with the patches: the former one, where the same file was added to an equal target as strongly."""
        build = _Build(self, strength)
        key = getattr(self._lora, "key", None)
        if key is None:
            clone = target.clone()
            build(clone)
            return clone
        both = (self._model is not None, self._clip is not None)
        return patched_models().patched(target, (key, strength, both, self._metadata, self._add), build)

    def add(self, clone: Any, strength: float) -> None:
        """Add the patches to *clone*."""
        self._built += 1
        self._taken.update(self._add(clone, self._patches, strength))
        if self._metadata:
            getattr(clone, "patcher", clone).set_attachments("lora_metadata", self._metadata)


class _Build:
    """Adds changes to a clone. What tells one from another is given to the registry beside it."""

    def __init__(self, changes: _Changes[Any, Any], strength: float) -> None:
        self._changes, self._strength = changes, strength

    def patch_identity_key(self) -> tuple[()]:
        """Nothing of its own."""
        return ()

    def __call__(self, clone: Any) -> None:
        self._changes.add(clone, self._strength)


def _add(clone: TakesPatches, patches: Mapping[Any, Any], strength: float) -> list[Any]:
    return clone.add_patches(patches, strength)


def _bypass(clone: Any, patches: Mapping[Any, Any], strength: float) -> list[Any]:
    patcher: Patcher = getattr(clone, "patcher", clone)
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


def _log_unused(patches: Mapping[Any, Any], taken: set[Any]) -> None:
    unused = [key for key in patches if key not in taken]
    if unused:
        log.warning("%d of %d changes of the LoRA fit no weight, such as %s", len(unused), len(patches), unused[0])
