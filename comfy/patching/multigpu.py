"""Copies of a patcher on other devices: making them, and keeping them in step with it."""

from __future__ import annotations

import uuid
from typing import Any, Protocol, Self, TypeVar, cast

import torch

from comfy.patcher_extension import CallbacksMP
from comfy.patching.attachments import call_back
from comfy.patching.protocols import AdditionalModel, CallsBack, PatchedModule
from comfy.patching.shared_state import Override

KEY = "multigpu"


class Spread(CallsBack, AdditionalModel, Protocol):
    """A patcher with copies on other devices; the copies are such patchers too."""

    additional_models: dict[Any, list[AdditionalModel]]
    is_multigpu_base_clone: bool

    def clone(
        self, disable_dynamic: bool = False, model_override: tuple[PatchedModule, Override] | None = None, force_deepcopy: bool = False
    ) -> Self: ...

    def get_clone_model_override(self) -> tuple[PatchedModule, Override]: ...

    def set_additional_models(self, key: Any, models: list[AdditionalModel]) -> None: ...

    def remove_additional_models(self, key: Any) -> None: ...

    def get_additional_models_with_key(self, key: Any) -> list[AdditionalModel]: ...


Whole = TypeVar("Whole", bound=Spread)


def deep_clone(
    patcher: Whole, new_load_device: torch.device | None = None, models_cache: dict[uuid.UUID, AdditionalModel] | None = None
) -> Whole:
    """A clone over weights of its own, for another device; additional models likewise, each once."""
    cache = {} if models_cache is None else models_cache
    twin = patcher.clone(force_deepcopy=True)
    twin.load_device = patcher.load_device if new_load_device is None else new_load_device
    twin.remove_additional_models(KEY)
    for models in twin.additional_models.values():
        for position, model in enumerate(models):
            if model.clone_base_uuid not in cache:
                cache[model.clone_base_uuid] = model.deepclone_multigpu(new_load_device, cache)
            models[position] = cache[model.clone_base_uuid]
    call_back(patcher, CallbacksMP.ON_DEEPCLONE_MULTIGPU, twin)
    return twin


def match_clones(patcher: Spread) -> None:
    """Replace the copies of *patcher* on other devices by ones with its present changes, over the modules that the copies have.

    Additional models that *patcher* has and a copy lacks are copied to the copy's device; those it no longer has leave the copy.
    """
    copies: list[AdditionalModel] = [_matched(patcher, cast(Spread, copy)) for copy in patcher.get_additional_models_with_key(KEY)]
    if copies:
        patcher.set_additional_models(KEY, copies)


def _matched(patcher: Spread, copy: Spread) -> Spread:
    twin = patcher.clone(model_override=copy.get_clone_model_override())
    twin.load_device = copy.load_device
    twin.is_multigpu_base_clone = copy.is_multigpu_base_clone
    there: dict[uuid.UUID, AdditionalModel] = {model.clone_base_uuid: model for model in copy.get_additional_models()}
    twin.remove_additional_models(KEY)
    for key, models in list(twin.additional_models.items()):
        matched = []
        for model in models:
            if model.clone_base_uuid not in there:
                there[model.clone_base_uuid] = model.deepclone_multigpu(new_load_device=twin.load_device, models_cache=there)
            matched.append(there[model.clone_base_uuid])
        twin.set_additional_models(key, matched)
    call_back(patcher, CallbacksMP.ON_MATCH_MULTIGPU_CLONES, twin)
    return twin
