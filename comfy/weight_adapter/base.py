"""The base of all formats that store the change of a weight in few numbers."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

import comfy.model_management

log = logging.getLogger(__name__)

CHANGE_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What tensors of the wrong number, shape or kind make of the arithmetic on them."""


class WeightAdapterBase:
    """The change of one weight, read from a file. Immutable; ``loaded_keys`` are the keys of the file that it was made from.

    ``weights`` holds the tensors and numbers in an order that each kind defines, with None for missing ones.
    """

    name: str = ""

    def __init__(self, loaded_keys: set[str], weights: Any) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def __init_subclass__(cls) -> None:
        """Every kind is compared by what its objects hold, see :mod:`comfy.patch_identity.fingerprints`."""
        super().__init_subclass__()
        for name in ("patch_identity_key", "patch_identity_lasts"):
            if name not in cls.__dict__:
                setattr(cls, name, WeightAdapterBase.__dict__[name])

    patch_identity_lasts = True

    def patch_identity_key(self) -> dict[str, Any]:
        """What the change depends on: everything but the file's names for it."""
        return {name: value for name, value in vars(self).items() if name != "loaded_keys"}

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

    def product(self, weight: Tensor) -> tuple[Tensor, Tensor, float] | None:
        """(up [rows, rank], down [rank, columns], factor) where the change of *weight* [rows, …] is their product and nothing else."""
        return None

    def dora_scale(self) -> Tensor | None:
        """The column norms of a weight-decomposed change (DoRA), if the file has them."""
        return None

    def misfit(self, shape: tuple[int, ...]) -> str:
        """Why this cannot change a weight of *shape*, in words; "" if it can. Looks at shapes alone: nothing is computed."""
        try:
            wanted = self.calculate_shape("") or shape
            pad_tensor_to_shape(torch.empty(shape, device="meta"), wanted)
            change = self.without_values().shape_of_change(wanted)
            if math.prod(change) != math.prod(wanted):
                return f"a change of shape {list(change)} does not fit the weight's {list(wanted)}"
            norms = self.dora_scale()
            if norms is not None and norms.numel() not in (1, *wanted[:2]):
                return f"norms of shape {list(norms.shape)} do not fit the weight's {list(wanted)}"
        except CHANGE_ERRORS as error:
            return (str(error).splitlines() or [type(error).__name__])[0]
        return ""

    def without_values(self) -> Self:
        """The same with stand-ins that have shapes only (meta tensors)."""
        twin = copy.copy(self)
        twin.weights = tuple(value.to("meta") if isinstance(value, Tensor) else value for value in self.weights)
        return twin

    def shape_of_change(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what would be added to a weight of *shape*; called on stand-ins. Raises one of ``CHANGE_ERRORS``."""
        return tuple(self.difference(torch.empty(shape, device="meta"), torch.float32)[0].shape)

    def decompose(
        self, weight: Tensor, change: Tensor, scale: float, strength: float, dtype: torch.dtype, function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """*weight* (in place) with *change* and the norms of :meth:`dora_scale`."""
        norms = self.dora_scale()
        assert norms is not None
        return weight_decompose(norms, weight, change, scale, strength, dtype, function)

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
        if self.dora_scale() is not None:
            return self.decompose(weight, change, scale, strength, intermediate_dtype, function)
        weight += function(((strength * scale) * change).type(weight.dtype))
        return weight


def unchanged(tensor: Tensor) -> Tensor:
    """The function on a change of patches that have none."""
    return tensor


class Cast:
    """Brings an adapter's tensors to the device of *weight* in *dtype*."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._device = weight.device
        self._dtype = dtype

    def __call__(self, tensor: Tensor) -> Tensor:
        return comfy.model_management.cast_to_device(tensor, self._device, self._dtype)


def scale_by(alpha: float | None, rank: int | None) -> float:
    """alpha over rank, or 1 where one is missing. Raises ``ValueError`` for a change of rank 0."""
    if rank == 0:
        raise ValueError("a change of rank 0")
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

    https://arxiv.org/abs/2402.09353; the norms run over the output axis if the scale has its length, else over the input axis. Over the
    output axis the weight is divided by its norms without the change, as ComfyUI does.
    """
    changed = weight + function(lora_diff * alpha).type(weight.dtype)
    if dora_scale.ndim and dora_scale.shape[0] == changed.shape[0]:
        return _with_norms(dora_scale, row_norms(weight), changed, weight, strength, intermediate_dtype)
    columns = changed.transpose(0, 1).reshape(changed.shape[1], -1)
    norms = columns.norm(dim=1).reshape(changed.shape[1], *[1] * (weight.ndim - 1)).transpose(0, 1)
    return _with_norms(dora_scale, norms, changed, weight, strength, intermediate_dtype)


def decompose_rows(
    magnitudes: Tensor,
    weight: Tensor,
    change: Tensor,
    alpha: float,
    strength: float,
    dtype: torch.dtype,
    function: Callable[[Tensor], Tensor],
) -> Tensor:
    """DoRA as PEFT trains it: the changed weight's rows get the lengths *magnitudes*, blended by *strength* (in place)."""
    changed = weight + function(change * alpha).type(weight.dtype)
    norms = row_norms(changed)
    return _with_norms(magnitudes.reshape(norms.shape), norms, changed, weight, strength, dtype)


def row_norms(weight: Tensor) -> Tensor:
    """The length of each output's row of *weight*, with its dimensions (all but the first of size 1)."""
    return weight.reshape(weight.shape[0], -1).norm(dim=1).reshape(weight.shape[0], *[1] * (weight.ndim - 1))


def _with_norms(wanted: Tensor, norms: Tensor, changed: Tensor, weight: Tensor, strength: float, dtype: torch.dtype) -> Tensor:
    """*weight*, set to or moved towards *changed*, which is overwritten, rescaled from *norms* to the *wanted* ones."""
    scale = comfy.model_management.cast_to_device(wanted, weight.device, dtype)
    if scale.numel() == norms.numel():  # trainers write them as a row, a column or a plain list
        scale = scale.reshape(norms.shape)
    factors = (scale / (norms + torch.finfo(weight.dtype).eps)).type(weight.dtype)
    changed.mul_(factors.expand_as(changed))
    if strength == 1.0:
        weight.copy_(changed)
    else:
        weight += changed.sub_(weight).mul_(strength)
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
