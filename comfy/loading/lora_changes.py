"""The changes that the tensors of a LoRA file make to models, looked up once per file and models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import comfy.lora
import comfy.lora_convert
from comfy.families.model_errors import ModelFileError
from comfy.loading.lora_fit import fitting_changes
from comfy.patch_identity.fingerprints import fingerprints
from comfy.weight_files.state_dicts import FileTensors

log = logging.getLogger(__name__)
OF_TEXT_ENCODERS = ("lora_te", "lora_prior_te", "text_encoder", "clip_", "t5xxl", "te_", "te1_", "te2_")


def lora_changes(
    lora: Mapping[str, Tensor], model: torch.nn.Module | None, clip: torch.nn.Module | None, log_missing: bool = True
) -> Mapping[Any, Any]:
    """{weight: change} of *lora* for the modules of a diffusion model and of text encoders. Shared, not to be changed.

    Raises ``ModelFileError`` for a file that changes no weight of them though it does not only speak of text encoders.
    Changes whose shapes do not fit are left out with one log line; with *log_missing*, one names keys that belong to no weight. Tensors
    of a file that :func:`load_lora_file` read are looked through once for the same modules, as long as the file stays in memory.
    """
    remember = getattr(lora, "remember", None)
    if remember is None:
        return _found(lora, model, clip, log_missing)
    tokens = fingerprints().tokens
    of_models = tuple(None if module is None else tokens.of(module) for module in (model, clip))
    found: Mapping[Any, Any] = remember((*of_models, log_missing), lambda: _found(lora, model, clip, log_missing))
    return found


def _found(lora: Mapping[str, Tensor], model: torch.nn.Module | None, clip: torch.nn.Module | None, log_missing: bool) -> Mapping[Any, Any]:
    tensors = _tensors_of(lora)
    key_map: dict[Any, Any] = {}
    if model is not None:
        key_map = comfy.lora.model_lora_keys_unet(model, key_map)
    if clip is not None:
        key_map = comfy.lora.model_lora_keys_clip(clip, key_map)
    with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode do not tell of changes
        patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(tensors), key_map, log_missing)
    file = getattr(model, "source_name", "")
    if file and not patches and any(not key.startswith(OF_TEXT_ENCODERS) for key in tensors):
        raise ModelFileError(
            f"{tensors.path} changes nothing in the diffusion model {file}: none of its {len(tensors)} tensors "
            f"names a weight there, such as {next(iter(tensors))}. It is for another model, or in a form that is not known"
        )
    return fitting_changes(patches, [module for module in (model, clip) if module is not None], tensors.path)


def _tensors_of(lora: Mapping[Any, Any]) -> FileTensors:
    """The tensors of *lora* by name, without what else a pickled file may hold, which one log line names."""
    path = getattr(lora, "path", "the LoRA")
    tensors = {key: value for key, value in lora.items() if isinstance(key, str) and isinstance(value, Tensor)}
    others = [repr(key) for key in lora if key not in tensors]
    if others:
        log.warning("%s: %d entries are no tensors and are not used, such as %s", path, len(others), others[0])
    return FileTensors(tensors, path)
