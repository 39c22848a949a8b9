"""Conditioning values in the form the sampler batches: how each kind is repeated, compared and concatenated."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.utils

log = logging.getLogger(__name__)

MAX_CROSS_ATTENTION_PADDING = 4  # repeating a context more often than this costs more than a second model call


def is_equal(left: Any, right: Any) -> bool:
    """Whether two conditioning values are equal, tensors and nested containers included.

    Values whose comparison has no truth value count as different, with a warning: they are then not batched together.
    """
    if torch.is_tensor(left) and torch.is_tensor(right):
        return torch.equal(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(is_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(is_equal, left, right))
    try:
        return bool(left == right)
    except (RuntimeError, TypeError, ValueError):
        log.warning(
            "conditioning of type %s cannot be compared with %s; they run in separate batches", type(left).__name__, type(right).__name__
        )
        return False


def _same_device(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.device == right.device:
        return True
    log.warning("conditioning on %s and on %s is not batched together", left.device, right.device)
    return False


class CONDRegular:
    """A tensor with a batch dimension that must agree in every other dimension to be batched."""

    def __init__(self, cond: Any) -> None:
        self.cond = cond

    def _copy_with(self, cond: Any) -> "CONDRegular":
        return type(self)(cond)

    def process_cond(self, batch_size: int, **_: Any) -> "CONDRegular":
        """The same conditioning repeated to *batch_size*; subclasses also read ``area``."""
        return self._copy_with(comfy.utils.repeat_to_batch_size(self.cond, batch_size))

    def can_concat(self, other: "CONDRegular") -> bool:
        """Whether this and *other* can share one model call."""
        return self.cond.shape == other.cond.shape and _same_device(self.cond, other.cond)

    def concat(self, others: Sequence["CONDRegular"]) -> Any:
        """One tensor holding this and *others* along the batch."""
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self) -> list[int]:
        """The shape, for memory estimates."""
        return list(self.cond.shape)


class CONDNoiseShape(CONDRegular):
    """A tensor laid over the latent: the sampler's area cuts it like the latent."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **_: Any) -> CONDRegular:
        """Cut to *area* (sizes, then offsets, per spatial dimension) and repeat to *batch_size*."""
        cut = self.cond
        if area is not None:
            dimensions = len(area) // 2
            for axis, (length, start) in enumerate(zip(area[:dimensions], area[dimensions:]), 2):
                cut = cut.narrow(axis, start, length)
        return self._copy_with(comfy.utils.repeat_to_batch_size(cut, batch_size))


class CONDCrossAttn(CONDRegular):
    """Cross-attention context (batch, tokens, width); different token counts are repeated to their common multiple.

    Repeating every token equally often leaves the attention result unchanged.
    """

    def can_concat(self, other: CONDRegular) -> bool:
        """Whether batch and width agree and the padding is worth it."""
        (batch, tokens, width), (other_batch, other_tokens, other_width) = self.cond.shape, other.cond.shape
        if (batch, width) != (other_batch, other_width):
            return False
        if math.lcm(tokens, other_tokens) // min(tokens, other_tokens) > MAX_CROSS_ATTENTION_PADDING:
            return False
        return _same_device(self.cond, other.cond)

    def concat(self, others: Sequence[CONDRegular]) -> torch.Tensor:
        """All contexts along the batch, each repeated to the common number of tokens."""
        contexts = [self.cond, *(other.cond for other in others)]
        tokens = math.lcm(*(context.shape[1] for context in contexts))
        return torch.cat(
            [context.repeat(1, tokens // context.shape[1], 1) if context.shape[1] < tokens else context for context in contexts]
        )


class CONDConstant(CONDRegular):
    """A value passed to the model unchanged, shared by everything in the batch."""

    def process_cond(self, batch_size: int, **_: Any) -> CONDRegular:
        """The value itself, whatever the batch."""
        return self._copy_with(self.cond)

    def can_concat(self, other: CONDRegular) -> bool:
        """Whether *other* holds an equal value."""
        return is_equal(self.cond, other.cond)

    def concat(self, others: Sequence[CONDRegular]) -> Any:
        """The shared value."""
        return self.cond

    def size(self) -> list[int]:
        """Counts as one element."""
        return [1]


class CONDList(CONDRegular):
    """A list of tensors, each with a batch dimension of its own."""

    def process_cond(self, batch_size: int, **_: Any) -> CONDRegular:
        """Every tensor repeated to *batch_size*."""
        return self._copy_with([comfy.utils.repeat_to_batch_size(tensor, batch_size) for tensor in self.cond])

    def can_concat(self, other: CONDRegular) -> bool:
        """Whether both lists hold tensors of the same shapes."""
        return [tensor.shape for tensor in self.cond] == [tensor.shape for tensor in other.cond]

    def concat(self, others: Sequence[CONDRegular]) -> list[torch.Tensor]:
        """One list whose tensors hold the whole batch."""
        return [torch.cat(row) for row in zip(self.cond, *(other.cond for other in others))]

    def size(self) -> list[int]:
        """One row with the list's total number of elements, in the last tensor's channel count."""
        elements = sum(math.prod(tensor.shape) for tensor in self.cond)
        channels = next((tensor.shape[1] for tensor in reversed(self.cond) if tensor.ndim > 1), 1)
        return [1, channels, elements // channels]
