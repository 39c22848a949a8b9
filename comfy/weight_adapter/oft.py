"""OFT and BOFT: rotations of a weight's output channels (https://arxiv.org/abs/2306.07280, https://arxiv.org/abs/2311.06243)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import comfy.model_management
from comfy.weight_adapter.base import Cast, WeightAdapterBase, log, present, weight_decompose

NORM_EPSILON = 1e-8


def rotation(blocks: Tensor, limit: float) -> Tensor:
    """The rotations that *blocks* (…, n, n) describe by Cayley's transform; *limit* > 0 limits their distance from the identity."""
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        norm = torch.norm(skew) + NORM_EPSILON
        if norm > limit:
            skew = skew * limit / norm
    identity = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    return (identity + skew) @ (identity - skew).float().inverse()


class OFTAdapter(WeightAdapterBase):
    """``weights``: (blocks, rescale, alpha, dora scale); blocks are (number, size, size)."""

    name = "oft"
    dimensions = 3

    @classmethod
    def load(
        cls, x: str, lora: Mapping[str, Tensor], alpha: float | None, dora_scale: Tensor | None, loaded_keys: set[str] | None = None
    ) -> OFTAdapter | None:
        """The adapter if the blocks have the number of dimensions that distinguishes OFT from BOFT, else None."""
        used: set[str] = set() if loaded_keys is None else loaded_keys
        blocks = lora.get(f"{x}.oft_blocks")
        if blocks is None or blocks.ndim != cls.dimensions:
            return None
        used.add(f"{x}.oft_blocks")
        return cls(used, (blocks, present(lora, f"{x}.rescale", used), alpha, dora_scale))

    def shape_of_change(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        blocks = self.weights[0]
        if blocks.shape[-1] != blocks.shape[-2] or blocks.shape[-3] * blocks.shape[-2] != shape[0]:
            raise ValueError(f"rotations of shape {list(blocks.shape)} do not fit {shape[0]} channels")
        return tuple(self.rotated_change(torch.empty(shape, device="meta"), blocks.float(), 1.0).shape)

    def rotated_change(self, weight: Tensor, rotations: Tensor, strength: float) -> Tensor:
        """The difference that rotating *weight* by *strength* times the rotations makes."""
        count, size, _ = rotations.shape
        identity = torch.eye(size, device=weight.device, dtype=weight.dtype)
        turned = torch.einsum(
            "knm,kn...->km...", rotations * strength - strength * identity, weight.reshape(count, size, *weight.shape[1:])
        )
        return turned.reshape(weight.shape)

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
        """Rotate *weight* in place and return it. Rotations that do not fit are logged and left out."""
        blocks, _, alpha, dora_scale = self.weights
        limit = alpha or 0.0
        count, size = blocks.shape[-3], blocks.shape[-2]
        if count * size != weight.shape[0]:
            log.error("%s %s: %d rotations of size %d do not fit %d channels", self.name, key, count, size, weight.shape[0])
            return weight
        rotations = rotation(Cast(weight, intermediate_dtype)(blocks), limit).to(weight)
        change = self.rotated_change(weight, rotations, strength)
        if dora_scale is not None:
            return weight_decompose(dora_scale, weight, change, limit, strength, intermediate_dtype, function)
        weight += function((strength * change).type(weight.dtype))
        return weight


class BOFTAdapter(OFTAdapter):
    """BOFT, the butterfly form: blocks are (stages, number, size, size), and channels are shuffled between stages."""

    name = "boft"
    dimensions = 4

    def rotated_change(self, weight: Tensor, rotations: Tensor, strength: float) -> Tensor:
        size = rotations.shape[-1]
        identity = torch.eye(size, device=weight.device, dtype=weight.dtype)
        turned = weight
        for stage, blocks in enumerate(rotations):
            if strength != 1:
                blocks = blocks * strength + (1 - strength) * identity
            distance = 2**stage * (size // 2)
            turned = turned.unflatten(0, (-1, 2, distance)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
            turned = torch.einsum("bij,bj...->bi...", blocks, turned)  # under one name, so that no step's input outlives it
            turned = turned.flatten(0, 1).unflatten(0, (-1, distance, 2)).transpose(1, 2).flatten(0, 2)
        rescale = self.weights[1]
        if rescale is not None:
            turned = turned * comfy.model_management.cast_to_device(rescale, weight.device, weight.dtype)
        return turned - weight
