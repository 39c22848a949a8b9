"""Patching a weight at the moment a layer uses it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import comfy.float
import comfy.lora
import comfy.model_management
import comfy.utils
from comfy.patching.on_host.filling import AT_ONCE, OnHost
from comfy.patching.on_host.row_blocks import in_row_blocks
from comfy.quantisation.weights import dequantised, is_quantised, requantised

_CALCULATE = comfy.lora.calculate_weight  # a node pack may put its own in its place


class LowVramPatch:
    """A function on a fetched weight that applies *patches[key]*, with the result that patching it for good has.

    *shape* is the shape that *key* names where the parameter's differs; *dtype* is the parameter's own dtype, to which the
    result is rounded (None: the dtype it arrives in).
    """

    is_lowvram_patch = True
    takes_quantised = True

    def __init__(
        self, key: str, patches: Mapping[str, Sequence[Any]], shape: Sequence[int] | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.key = key
        self.patches = {key: list(patches[key])}
        self._shape = shape
        self._dtype = dtype

    def __call__(self, weight: Tensor) -> Tensor:
        if is_quantised(weight):  # a matrix under its own name
            return patched_value(self.patches[self.key], weight, self.key, weight.device, weight.dtype)
        named = weight if self._shape is None else weight.reshape(self._shape)
        changed = patched_value(self.patches[self.key], named, self.key, weight.device, self._dtype or weight.dtype)
        return changed.reshape(weight.shape if changed.numel() == weight.numel() else changed.shape).to(weight.dtype)


def patched_value(
    patches: Sequence[Any],
    weight: Tensor,
    key: str,
    device: torch.device | None,
    dtype: torch.dtype,
    calculate: Callable[[Sequence[Any], Tensor, str], Tensor] | None = None,
    original_weights: Mapping[str, Any] | None = None,
    on_host: OnHost = AT_ONCE,
) -> Tensor:
    """A new tensor: *weight* with *patches*, computed on *device* in the dtype for patches, rounded to *dtype*.

    *calculate* applies the patches (None: :func:`comfy.lora.calculate_weight` does, with *original_weights*, or on the host the same
    arithmetic in blocks, as *on_host* says). Rounding to 8-bit floats is stochastic with a seed made from *key*, so that it
    is the same every time. A quantised weight is changed as values and quantised again in its format, rounded in the same way.
    """
    computed = comfy.model_management.lora_compute_dtype(device)
    is_own = calculate is None and comfy.lora.calculate_weight is _CALCULATE
    apply = calculate or functools.partial(comfy.lora.calculate_weight, original_weights=original_weights)
    if is_quantised(weight):
        stored = weight if device is None else weight.to(device)
        changed = apply(patches, dequantised(stored, computed), key)
        return requantised(stored, changed, comfy.utils.string_to_seed(key))
    is_here = (device or weight.device).type == "cpu"
    found = in_row_blocks(patches, weight, computed, dtype, on_host) if is_own and is_here else None
    if found is not None:
        return found
    changed = apply(patches, comfy.model_management.cast_to_device(weight, device, computed, copy=True), key)
    return comfy.float.stochastic_rounding(changed, dtype, seed=comfy.utils.string_to_seed(key) if dtype.itemsize == 1 else 0)
