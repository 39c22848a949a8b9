"""The base of all formats that store the change of a weight in few numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import comfy.model_management

log = logging.getLogger(__name__)


class WeightAdapterBase:
    """The change of one weight, read from a file. Immutable; ``loaded_keys`` are the keys of the file that it was made from.

    ``weights`` holds the tensors and numbers in an order that each kind defines, with None for missing ones.
    """

    name: str = ""

    def __init__(self, loaded_keys: set[str], weights: Any) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @classmethod
    def load(
        cls, x: str, lora: Mapping[str, Tensor], alpha: float | None, dora_scale: Tensor | None, loaded_keys: set[str] | None = None
    ) -> WeightAdapterBase | None:
        """The adapter of this kind that *lora* has under the name *x*, or None."""
        raise NotImplementedError

    def calculate_shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of the changed weight if it differs from that of the weight, else None."""
        return None

    def difference(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
        """The tensor to add to *weight* at strength 1, on its device in *dtype*, and the factor that the file gives."""
        raise NotImplementedError

    def dora_scale(self) -> Tensor | None:
        """The column norms of a weight-decomposed change (DoRA), if the file has them."""
        return None

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        """Change *weight* in place and return it. A change of the wrong size is logged and left out."""
        change, scale = self.difference(weight, intermediate_dtype)
        if change.numel() != weight.numel():
            log.error("%s %s: a change of shape %s does not fit the weight's %s", self.name, key, tuple(change.shape), tuple(weight.shape))
            return weight
        change = change.reshape(weight.shape)
        dora_scale = self.dora_scale()
        if dora_scale is not None:
            return weight_decompose(dora_scale, weight, change, scale, strength, intermediate_dtype, function)
        weight += function(((strength * scale) * change).type(weight.dtype))
        return weight


class Cast:
    """Brings an adapter's tensors to the device of *weight* in *dtype*."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._device = weight.device
        self._dtype = dtype

    def __call__(self, tensor: Tensor) -> Tensor:
        return comfy.model_management.cast_to_device(tensor, self._device, self._dtype)


def scale_by(alpha: float | None, rank: int | None) -> float:
    """alpha over rank, or 1 where one is missing."""
    return 1.0 if alpha is None or rank is None else alpha / rank


def present(lora: Mapping[str, Tensor], name: str, loaded_keys: set[str]) -> Tensor | None:
    """The tensor *name*, which is noted in *loaded_keys*, or None."""
    tensor = lora.get(name)
    if tensor is not None:
        loaded_keys.add(name)
    return tensor


def weight_decompose(
    dora_scale: Tensor,
    weight: Tensor,
    lora_diff: Tensor,
    alpha: float,
    strength: float,
    intermediate_dtype: torch.dtype,
    function: Callable[[Tensor], Tensor],
) -> Tensor:
    """Apply DoRA to *weight* in place: add the change, rescale to the norms in *dora_scale*, and blend by *strength*.

    https://arxiv.org/abs/2402.09353; the norms run over the output axis if the scale has its length, else over the input axis.
    """
    scale = comfy.model_management.cast_to_device(dora_scale, weight.device, intermediate_dtype)
    changed = weight + function(lora_diff * alpha).type(weight.dtype)
    trailing = [1] * (weight.ndim - 1)
    if scale.shape[0] == changed.shape[0]:
        norm = weight.reshape(weight.shape[0], -1).norm(dim=1).reshape(weight.shape[0], *trailing)
    else:
        columns = changed.transpose(0, 1).reshape(changed.shape[1], -1)
        norm = columns.norm(dim=1).reshape(changed.shape[1], *trailing).transpose(0, 1)
    changed = changed * (scale / (norm + torch.finfo(weight.dtype).eps)).type(weight.dtype)
    if strength == 1.0:
        weight.copy_(changed)
    else:
        weight += strength * (changed - weight)
    return weight


def pad_tensor_to_shape(tensor: Tensor, new_shape: list[int] | tuple[int, ...]) -> Tensor:
    """*tensor* padded with zeros to *new_shape*. Raises ``ValueError`` if that has another number of dimensions or is smaller."""
    if len(new_shape) != tensor.ndim or any(new < old for new, old in zip(new_shape, tensor.shape)):
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} cannot be padded to {tuple(new_shape)}")
    padded = tensor.new_zeros(tuple(new_shape))
    padded[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return padded


def tucker(core: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """The kernel whose Tucker decomposition is *core* (ranks first, then the kernel's extent), *columns* and *rows*."""
    return torch.einsum("ij...,jr,ip->pr...", core, columns, rows)
