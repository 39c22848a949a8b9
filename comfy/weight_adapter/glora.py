"""GLoRA: a change of low rank that also depends on the weight itself (https://arxiv.org/abs/2306.07967)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from comfy.weight_adapter.base import Cast, WeightAdapterBase, scale_by


class GLoRAAdapter(WeightAdapterBase):
    """``weights``: (a1, a2, b1, b2, alpha, dora scale). Of the two conventions, the shapes show which one a file uses."""

    name = "glora"

    @classmethod
    def load(
        cls, x: str, lora: Mapping[str, Tensor], alpha: float | None, dora_scale: Tensor | None, loaded_keys: set[str] | None = None
    ) -> GLoRAAdapter | None:
        """Raises ``KeyError`` for an incomplete set."""
        used: set[str] = set() if loaded_keys is None else loaded_keys
        names = [f"{x}.{part}.weight" for part in ("a1", "a2", "b1", "b2")]
        if not any(name in lora for name in names):
            return None
        used.update(names)
        return cls(used, (*(lora[name] for name in names), alpha, dora_scale))

    def dora_scale(self) -> Tensor | None:
        return self.weights[5]

    def difference(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
        """weight x A + B, with A and B of low rank; the older convention multiplies the pairs in the other order."""
        *parts, alpha, _ = self.weights
        a1, a2, b1, b2 = parts
        is_older = b2.shape[1] == b1.shape[0] == a1.shape[0] == a2.shape[1]
        is_newer = b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]
        if is_newer and not (is_older and a2.shape[0] == weight.shape[0] == weight.shape[1]):
            is_older = False
        rank = a1.shape[0] if is_older else a2.shape[0]
        cast = Cast(weight, dtype)
        a1, a2, b1, b2 = (cast(part.flatten(1)) for part in parts)
        own = weight.to(dtype)
        if is_older:
            return torch.mm(b2, b1).add_(torch.mm(torch.mm(own.flatten(1), a2), a1)), scale_by(alpha, rank)
        through = torch.einsum("oi...,ij->oj...", torch.einsum("oi...,ij->oj...", own, a1), a2)
        return torch.mm(b1, b2).reshape(weight.shape).add_(through.reshape(weight.shape)), scale_by(alpha, rank)
