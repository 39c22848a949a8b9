"""Applying a LoRA file to a diffusion model and its text encoders."""

from __future__ import annotations

import logging
from typing import Any

import comfy.lora
import comfy.lora_convert
from comfy.weight_adapter.bypass import LAYERS, can_bypass, create_bypass_injections_from_patches

log = logging.getLogger(__name__)


def load_lora_for_models(
    model: Any, clip: Any, lora: dict[str, Any], strength_model: float, strength_clip: float, lora_metadata: Any = None
) -> tuple[Any, Any]:
    """Clones of *model* and *clip* (each may be None) with the tensors *lora* as patches.

    *lora_metadata*, if given, is attached to both as ``lora_metadata``. What fits neither is named in one log line.
    """
    patches = _patches_for(model, clip, lora)
    taken: set[Any] = set()
    new_model = None if model is None else model.clone()
    if new_model is not None:
        taken.update(new_model.add_patches(patches, strength_model))
    new_clip = None if clip is None else clip.clone()
    if new_clip is not None:
        taken.update(new_clip.add_patches(patches, strength_clip))
    if lora_metadata:
        for patcher in ([] if new_model is None else [new_model]) + ([] if new_clip is None else [new_clip.patcher]):
            patcher.set_attachments("lora_metadata", lora_metadata)
    _log_unused(patches, taken)
    return new_model, new_clip


def load_bypass_lora_for_models(
    model: Any, clip: Any, lora: dict[str, Any], strength_model: float, strength_clip: float
) -> tuple[Any, Any]:
    """The same without touching weights where possible: the changes are added to the layers' results.

    Changes that do more than add to the weight of one linear layer or convolution are applied as ordinary patches.
    """
    patches = _patches_for(model, clip, lora)
    taken: set[Any] = set()
    clones = []
    for owner, strength in ((model, strength_model), (clip, strength_clip)):
        clone = None if owner is None else owner.clone()
        clones.append(clone)
        if clone is not None:
            taken.update(_bypass(getattr(clone, "patcher", clone), patches, strength))
    _log_unused(patches, taken)
    return clones[0], clones[1]


def _bypass(patcher: Any, patches: dict[Any, Any], strength: float) -> list[Any]:
    weights = patcher.weights
    known = set(weights.keys())
    beside = {
        key: patch
        for key, patch in patches.items()
        if key in known and can_bypass(patch) and weights.is_whole(key) and isinstance(_layer_of(patcher, key), LAYERS)
    }
    if beside:
        injections = patcher.get_injections("bypass_lora") or []
        patcher.set_injections("bypass_lora", [*injections, *create_bypass_injections_from_patches(patcher, beside, strength)])
    return [*beside, *patcher.add_patches({key: patch for key, patch in patches.items() if key not in beside}, strength)]


def _layer_of(patcher: Any, key: str) -> Any:
    return patcher.get_model_object(patcher.weights.paths(key)[0].rpartition(".")[0])


def _patches_for(model: Any, clip: Any, lora: dict[str, Any]) -> dict[Any, Any]:
    key_map: dict[Any, Any] = {}
    if model is not None:
        key_map = comfy.lora.model_lora_keys_unet(model.model, key_map)
    if clip is not None:
        key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, key_map)
    return comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), key_map)


def _log_unused(patches: dict[Any, Any], taken: set[Any]) -> None:
    unused = [key for key in patches if key not in taken]
    if unused:
        log.warning("%d of %d changes of the LoRA fit no weight, such as %s", len(unused), len(patches), unused[0])
