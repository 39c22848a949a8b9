"""Brings tensors to another batch size, masks to the shape of latents, and several latents into one tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def repeat_to_batch_size(tensor: Tensor, batch_size: int, dim: int = 0) -> Tensor:
    """*tensor* with *batch_size* entries along *dim*: cut, or repeated from the start. A view where possible."""
    present = tensor.shape[dim]
    if present < batch_size:
        times = [1] * tensor.ndim
        times[dim] = math.ceil(batch_size / present)
        tensor = tensor.repeat(times)
    return tensor if tensor.shape[dim] == batch_size else tensor.narrow(dim, 0, batch_size)


def resize_to_batch_size(tensor: Tensor, batch_size: int) -> Tensor:
    """*tensor* with *batch_size* entries along dimension 0: evenly picked or evenly repeated, in order."""
    if tensor.shape[0] == batch_size:
        return tensor
    if batch_size <= 1:
        return tensor[:batch_size]
    return tensor[torch.tensor(_even_picks(tensor.shape[0], batch_size), device=tensor.device)]


def resize_list_to_batch_size(l: list[Any], batch_size: int) -> list[Any]:  # noqa: E741
    """``resize_to_batch_size`` for lists; an empty list stays empty."""
    if len(l) in (0, batch_size):
        return l
    if batch_size <= 1:
        return l[:batch_size]
    return [l[index] for index in _even_picks(len(l), batch_size)]


def _even_picks(present: int, wanted: int) -> list[int]:
    last = present - 1
    if wanted < present:
        return [min(round(index * (last / (wanted - 1))), last) for index in range(wanted)]
    return [min(math.floor((index + 0.5) * (present / wanted)), last) for index in range(wanted)]


def reshape_mask(input_mask: Tensor, output_shape: Sequence[int]) -> Tensor:
    """Resize a mask to the latent shape *output_shape* (B×C and one to three spatial sizes); channels and batch are repeated."""
    dimensions = len(output_shape) - 2
    mask = input_mask
    if dimensions == 2:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])
    elif dimensions == 3 and mask.ndim < 5:
        mask = mask.reshape(1, 1, -1, *mask.shape[-2:])
    mask = torch.nn.functional.interpolate(mask, size=tuple(output_shape[2:]), mode=_INTERPOLATION[dimensions])
    if mask.shape[1] < output_shape[1]:
        mask = mask.repeat(1, output_shape[1], *[1] * dimensions)[:, : output_shape[1]]
    return repeat_to_batch_size(mask, output_shape[0])


def pack_latents(latents: Sequence[Tensor]) -> tuple[Tensor, list[Any]]:
    """Join latents of one batch size into a B×1×N tensor; returns it and the shapes to unpack it."""
    flat = [latent.reshape(latent.shape[0], 1, -1) for latent in latents]
    return torch.cat(flat, dim=-1), [latent.shape for latent in latents]


def unpack_latents(combined_latent: Tensor, latent_shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """The latents that ``pack_latents`` joined, as views; a single one is not packed and comes back unchanged."""
    if len(latent_shapes) < 2:
        return [combined_latent]
    parts = combined_latent.split([math.prod(shape[1:]) for shape in latent_shapes], dim=-1)
    return [part.reshape(part.shape[0], *shape[1:]) for part, shape in zip(parts, latent_shapes)]


def string_to_seed(data: str | bytes) -> int:
    """The CRC-32 of *data* (a character counts as its code point), from which seeds are derived."""
    checksum = 0xFFFFFFFF
    for item in data:
        checksum ^= ord(item) if isinstance(item, str) else item
        for _ in range(8):
            checksum = (checksum >> 1) ^ (0xEDB88320 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF
