"""LoHa: the element-wise product of two changes of low rank (https://arxiv.org/abs/2108.06098)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from comfy.weight_adapter.base import Cast, WeightAdapterBase, present, scale_by, tucker


class LoHaAdapter(WeightAdapterBase):
    """``weights``: (w1 a, w1 b, alpha, w2 a, w2 b, t1, t2, dora scale)."""

    name = "loha"

    @classmethod
    def load(
        cls, x: str, lora: Mapping[str, Tensor], alpha: float | None, dora_scale: Tensor | None, loaded_keys: set[str] | None = None
    ) -> LoHaAdapter | None:
        """Raises ``KeyError`` for an incomplete set."""
        used: set[str] = set() if loaded_keys is None else loaded_keys
        names = [f"{x}.hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b")]
        if not any(name in lora for name in names):
            return None
        used.update(names)
        w1_a, w1_b, w2_a, w2_b = (lora[name] for name in names)
        cores = [present(lora, f"{x}.hada_{part}", used) for part in ("t1", "t2")]
        return cls(used, (w1_a, w1_b, alpha, w2_a, w2_b, *cores, dora_scale))

    def dora_scale(self) -> Tensor | None:
        return self.weights[7]

    def difference(self, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
        """(w1 a x w1 b) * (w2 a x w2 b), each through its core for convolutions."""
        w1_a, w1_b, alpha, w2_a, w2_b, t1, t2, _ = self.weights
        cast = Cast(weight, dtype)

        def factor(rows: Tensor, columns: Tensor, core: Tensor | None) -> Tensor:
            return torch.mm(cast(rows), cast(columns)) if core is None else tucker(cast(core), cast(columns), cast(rows))

        return factor(w1_a, w1_b, t1).mul_(factor(w2_a, w2_b, t2)), scale_by(alpha, w1_b.shape[0])
