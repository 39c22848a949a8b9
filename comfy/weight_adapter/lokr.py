"""LoKr: the Kronecker product of two small matrices, each possibly of low rank (https://arxiv.org/abs/2212.10650)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from comfy.weight_adapter.base import Cast, WeightAdapterBase, present, scale_by, tucker

PARTS = ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")


class LoKrAdapter(WeightAdapterBase):
    """``weights``: (w1, w2, alpha, w1 a, w1 b, w2 a, w2 b, t2, dora scale)."""

    name = "lokr"

    @classmethod
    def load(
        cls, x: str, lora: Mapping[str, Tensor], alpha: float | None, dora_scale: Tensor | None, loaded_keys: set[str] | None = None
    ) -> LoKrAdapter | None:
        """Raises ``KeyError`` when a factor is missing or half there."""
        used: set[str] = set() if loaded_keys is None else loaded_keys
        parts = {part: present(lora, f"{x}.lokr_{part}", used) for part in PARTS}
        if all(tensor is None for tensor in parts.values()):
            return None
        for factor in ("w1", "w2"):
            if parts[factor] is None and (parts[f"{factor}_a"] is None or parts[f"{factor}_b"] is None):
                raise KeyError(f"{x}.lokr_{factor}")
        return cls(used, (parts["w1"], parts["w2"], alpha, *(parts[part] for part in PARTS[2:]), dora_scale))

    def dora_scale(self) -> Tensor | None:
        return self.weights[8]

    def difference(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
        """kron(w1, w2); a factor that the file stores as a product is multiplied out first."""
        w1, w2, alpha, w1_a, w1_b, w2_a, w2_b, t2, _ = self.weights
        cast = Cast(weight, dtype)
        rank = None
        if w1 is None:
            rank = w1_b.shape[0]
            w1 = torch.mm(cast(w1_a), cast(w1_b))
        if w2 is None:
            rank = w2_b.shape[0]
            w2 = torch.mm(cast(w2_a), cast(w2_b)) if t2 is None else tucker(cast(t2), cast(w2_b), cast(w2_a))
        small, large = cast(w1), cast(w2)
        if large.ndim > 2:
            small = small.reshape(*small.shape, *[1] * (large.ndim - 2))
        return torch.kron(small, large.contiguous()), scale_by(alpha, rank)
