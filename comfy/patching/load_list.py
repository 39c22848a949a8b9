"""The layers of a patcher's module in the form that packs read which spread them over devices."""

from __future__ import annotations

from typing import Any

import torch

from comfy.patching.layers import layers_of
from comfy.patching.model_weights import ModelWeights
from comfy.patching.protocols import Patcher

SMALL_LAYER_BYTES = 64 * 1024


def load_list(patcher: Patcher, for_dynamic: bool = False, default_device: torch.device | None = None) -> list[tuple[Any, ...]]:
    """One tuple per layer, in the module's order: (bytes while its weights are fetched, bytes, name, module, {attribute: parameter}).

    With *for_dynamic* two entries take the place of the first, so that sorting puts small layers first, then large ones by size.
    *default_device* has no effect: the weights of every layer come from the file.
    """
    rows: list[tuple[Any, ...]] = []
    for layer in layers_of(patcher.model):
        fetched = layer.size_bytes
        if layer.can_stream:
            fetched += sum(
                low_vram_patch_estimate_vram(patcher.model, path) for path in layer.parameters.values() if path in patcher.patches
            )
        parameters = {attribute: getattr(layer.module, attribute) for attribute in layer.parameters}
        order = (fetched >= SMALL_LAYER_BYTES, -fetched) if for_dynamic else (fetched,)
        rows.append((*order, layer.size_bytes, layer.name, layer.module, parameters))
    return rows


def low_vram_patch_estimate_vram(model: torch.nn.Module, key: str) -> int:
    """Bytes it takes to patch *key*'s weight when it is used: two copies in the dtype *model* computes in; 0 where there is no weight.

    Raises ``AttributeError`` for an unknown key.
    """
    weight = ModelWeights(model).get(key)
    if weight is None:
        return 0
    dtype: torch.dtype = getattr(model, "manual_cast_dtype", torch.float32) or weight.dtype
    return 2 * weight.numel() * dtype.itemsize
