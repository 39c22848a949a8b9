"""LoRA: a change of low rank, the product of two matrices (https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from comfy.weight_adapter.base import Cast, WeightAdapterBase, decompose_rows, pad_tensor_to_shape, present, scale_by, unchanged

# Trainers' names for the up matrix, the down matrix, and the middle one of convolutions.
STYLES = (
    (".lora_up.weight", ".lora_down.weight", ".lora_mid.weight"),
    ("_lora.up.weight", "_lora.down.weight", None),
    (".lora_B.weight", ".lora_A.weight", None),
    (".lora.up.weight", ".lora.down.weight", None),
    (".lora_B", ".lora_A", None),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", None),
    (".lora_B.default.weight", ".lora_A.default.weight", None),
)
# How trainers name the lengths of the rows of a weight-decomposed change (DoRA), other than ``dora_scale``.
MAGNITUDES = (
    ".magnitude",
    ".lora_magnitude_vector",
    ".lora_magnitude_vector.weight",
    ".lora_magnitude_vector.default",
    ".lora_magnitude_vector.default.weight",
    ".magnitude.weight",
    ".dora_magnitude",
)


class LoRAAdapter(WeightAdapterBase):
    """``weights``: (up, down, alpha, mid, dora scale, new shape)."""

    name = "lora"

    @classmethod
    def load(
        cls, x: str, lora: Mapping[str, Tensor], alpha: float | None, dora_scale: Tensor | None, loaded_keys: set[str] | None = None
    ) -> LoRAAdapter | None:
        """Raises ``KeyError`` when only one of the two matrices is there."""
        used: set[str] = set() if loaded_keys is None else loaded_keys
        for up_suffix, down_suffix, mid_suffix in STYLES:
            up_name, down_name = x + up_suffix, x + down_suffix
            if up_name in lora or down_name in lora:
                mid = None if mid_suffix is None else present(lora, x + mid_suffix, used)
                shape = present(lora, f"{x}.reshape_weight", used)
                used |= {up_name, down_name}
                kind, norms = cls, dora_scale
                suffix = next((suffix for suffix in MAGNITUDES if x + suffix in lora), None)
                if dora_scale is None and suffix is not None:
                    kind, norms = DecomposedLoRA, present(lora, x + suffix, used)
                return kind(used, (lora[up_name], lora[down_name], alpha, mid, norms, None if shape is None else shape.tolist()))
        return None

    def calculate_shape(self, key: str) -> tuple[int, ...] | None:
        """The shape that the file asks for, or None."""
        return None if self.weights[5] is None else tuple(self.weights[5])

    def dora_scale(self) -> Tensor | None:
        return self.weights[4]

    def shape_of_change(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Told without arithmetic where there is no middle: files have hundreds of these."""
        up, down, alpha, mid, *_ = self.weights
        if mid is not None or up.ndim < 2 or down.ndim < 2:
            return super().shape_of_change(shape)
        scale_by(alpha, down.shape[0])
        if math.prod(up.shape[1:]) != down.shape[0]:
            raise ValueError(f"matrices of shapes {list(up.shape)} and {list(down.shape)} have different ranks")
        return (up.shape[0], *down.shape[1:])

    def difference(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
        """up x down, or up x mid x down for a convolution that is split in three."""
        up, down, alpha, mid, *_ = self.weights
        cast = Cast(weight, dtype)
        up_matrix, down_matrix = cast(up), cast(down)
        scale = scale_by(alpha, down_matrix.shape[0])
        if mid is not None:
            core = cast(mid)
            inner = torch.mm(down_matrix.transpose(0, 1).flatten(1), core.transpose(0, 1).flatten(1))
            down_matrix = inner.reshape(down_matrix.shape[1], down_matrix.shape[0], *core.shape[2:]).transpose(0, 1)
        return torch.mm(up_matrix.flatten(1), down_matrix.flatten(1)), scale

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
        """Change *weight* in place; if the file asks for another shape, a padded copy is changed instead.

        A plain product is added as it is computed, in one pass over the weight.
        """
        if self.weights[5] is not None:
            weight = pad_tensor_to_shape(weight, self.weights[5])
        product = self._factors(weight) if function is unchanged and weight.dtype == intermediate_dtype and weight.is_contiguous() else None
        if product is not None:
            up, down, scale = product
            cast = Cast(weight, intermediate_dtype)
            weight.view(weight.shape[0], -1).addmm_(cast(up), cast(down), alpha=strength * scale)
            return weight
        return super().calculate_weight(weight, key, strength, strength_model, offset, function, intermediate_dtype, original_weight)

    def product(self, weight: Tensor) -> tuple[Tensor, Tensor, float] | None:
        """As the base says; None for what a node pack computes in its own way, or what asks for another shape."""
        is_own = type(self).calculate_weight is _CALCULATE
        return self._factors(weight) if is_own and self.weights[5] is None else None

    def _factors(self, weight: Tensor) -> tuple[Tensor, Tensor, float] | None:
        """The two matrices and the factor on them; None unless the change is their product alone, and fits *weight*."""
        up, down, alpha, mid, *_ = self.weights
        if mid is not None or self.dora_scale() is not None or min(weight.ndim, up.ndim, down.ndim) < 2:
            return None
        rank = down.shape[0]
        if rank == 0 or up.shape[0] != weight.shape[0] or up[0].numel() != rank or down.numel() * weight.shape[0] != weight.numel() * rank:
            return None
        return up.flatten(1), down.flatten(1), scale_by(alpha, rank)


_CALCULATE = LoRAAdapter.calculate_weight


class DecomposedLoRA(LoRAAdapter):
    """A LoRA with magnitudes as PEFT trains them: row lengths of the changed weight, where ``dora_scale`` is otherwise."""

    def decompose(
        self, weight: Tensor, change: Tensor, scale: float, strength: float, dtype: torch.dtype, function: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return decompose_rows(self.weights[4], weight, change, scale, strength, dtype, function)

    def misfit(self, shape: tuple[int, ...]) -> str:
        """Why this cannot change a weight of *shape*, in words; it needs a length for each row as well."""
        count, rows = self.weights[4].numel(), (self.calculate_shape("") or shape)[0]
        return super().misfit(shape) or ("" if count == rows else f"{count} magnitudes do not fit {rows} rows")
