"""Patching a weight at the moment a layer uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import comfy.float
import comfy.lora
import comfy.model_management
import comfy.utils


class LowVramPatch:
    """A function on a fetched weight that applies *patches[key]*, with the result that patching it for good has.

    *shape* is the shape that *key* names where the parameter's differs; *dtype* is the parameter's own dtype, to which the
    result is rounded (None: the dtype it arrives in).
    """

    is_lowvram_patch = True

    def __init__(
        self, key: str, patches: Mapping[str, Sequence[Any]], shape: Sequence[int] | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.key = key
        self.patches = {key: list(patches[key])}
        self._shape = shape
        self._dtype = dtype

    def __call__(self, weight: Tensor) -> Tensor:
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
) -> Tensor:
    """A new tensor: *weight* with *patches*, computed on *device* in the dtype for patches, rounded to *dtype*.

    *calculate* applies the patches (None: :func:`comfy.lora.calculate_weight` does). Rounding to 8-bit floats is stochastic with a
    seed made from *key*, so that it is the same every time.
    """
    working = comfy.model_management.cast_to_device(weight, device, comfy.model_management.lora_compute_dtype(device), copy=True)
    changed = (calculate or comfy.lora.calculate_weight)(patches, working, key)
    return comfy.float.stochastic_rounding(changed, dtype, seed=comfy.utils.string_to_seed(key) if dtype.itemsize == 1 else 0)
