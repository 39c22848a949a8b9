"""Applying a LoRA file to a diffusion model and its text encoders."""

from __future__ import annotations

import logging
from typing import Any

import comfy.lora
import comfy.lora_convert

log = logging.getLogger(__name__)


def load_lora_for_models(model: Any, clip: Any, lora: dict[str, Any], strength_model: float, strength_clip: float,
                         lora_metadata: Any = None) -> tuple[Any, Any]:
    """Clones of *model* and *clip* (each may be None) with the tensors *lora* as patches.

    *lora_metadata*, if given, is attached to both as ``lora_metadata``. What fits neither is named in one log line.
    """
    key_map: dict[Any, Any] = {}
    if model is not None:
        key_map = comfy.lora.model_lora_keys_unet(model.model, key_map)
    if clip is not None:
        key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, key_map)
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), key_map)
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
    unused = [key for key in patches if key not in taken]
    if unused:
        log.warning("%d of %d changes of the LoRA fit no weight, such as %s", len(unused), len(patches), unused[0])
    return new_model, new_clip
