"""LoRA: a change of low rank, the product of two matrices (https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from comfy.weight_adapter.base import Cast, WeightAdapterBase, pad_tensor_to_shape, present, scale_by

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
            if up_name in lora:
                mid = None if mid_suffix is None else present(lora, x + mid_suffix, used)
                shape = present(lora, f"{x}.reshape_weight", used)
                used |= {up_name, down_name}
                return cls(used, (lora[up_name], lora[down_name], alpha, mid, dora_scale, None if shape is None else shape.tolist()))
        return None

    def calculate_shape(self, key: str) -> tuple[int, ...] | None:
        """The shape that the file asks for, or None."""
        return None if self.weights[5] is None else tuple(self.weights[5])

    def dora_scale(self) -> Tensor | None:
        return self.weights[4]

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
        """Change *weight* in place; if the file asks for another shape, a padded copy is changed instead."""
        if self.weights[5] is not None:
            weight = pad_tensor_to_shape(weight, self.weights[5])
        return super().calculate_weight(weight, key, strength, strength_model, offset, function, intermediate_dtype, original_weight)
