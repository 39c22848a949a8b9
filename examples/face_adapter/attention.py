"""Attention to a face beside that to the text."""

from typing import Any

import torch
from torch import Tensor

from comfy.ldm.modules.attention import optimized_attention


class FaceAttention:
    """Replaces one cross-attention: adds attention to *keys* and *values* (2 x tokens x width: with the face, without), times *weight*.

    *sigmas* are the highest and lowest noise level at which it acts; None: at all. It never asks the device for a number, so no block waits
    for the device. Immutable.
    """

    patch_identity_lasts = True

    def __init__(self, keys: Tensor, values: Tensor, weight: float, sigmas: tuple[float, float] | None) -> None:
        self.keys, self.values, self.weight, self.sigmas = keys, values, weight, sigmas

    def patch_identity_key(self) -> tuple[Any, ...]:
        """All that it depends on."""
        return self.keys, self.values, self.weight, self.sigmas

    def to(self, target: torch.device | torch.dtype) -> "FaceAttention":
        """The same with keys and values on a device, or in a dtype; called once per sampling, before its first step."""
        keys, values = self.keys.to(target), self.values.to(target)
        return self if keys is self.keys and values is self.values else FaceAttention(keys, values, self.weight, self.sigmas)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        """*q* is (sides of guidance x batch) x pixels x width."""
        text = optimized_attention(q, k, v, extra["n_heads"])
        sides = extra["cond_or_uncond"]
        keys, values = (self._per_side(tensor, sides, len(q) // len(sides)) for tensor in (self.keys, self.values))
        face = optimized_attention(q, keys.to(q), values.to(q), extra["n_heads"])
        return text + face * self._strength(extra["sigmas"], q)

    @staticmethod
    def _per_side(tensor: Tensor, sides: list[int], batch: int) -> Tensor:
        """The rows of *tensor* for each side: 0 for the positive one, which sees the face, 1 for the negative one."""
        return torch.cat([tensor[side : side + 1].expand(batch, -1, -1) for side in sides])

    def _strength(self, sigmas: Tensor, like: Tensor) -> Any:
        if self.sigmas is None:
            return self.weight
        highest, lowest = self.sigmas
        is_active = (sigmas[:1] <= highest) & (sigmas[:1] >= lowest)
        return is_active.to(like) * self.weight
