"""Weights that are sent to a card before their model is loaded, while another one computes.

A prompt that will sample after its texts are encoded needs the diffusion model next. While the card computes texts its copy engine is
idle, so weights that lie in page-locked memory are sent then, by a stream of their own, into memory that is free anyway. Loading takes
what has come and copies the rest. Nothing of the model changes before: what was sent can be dropped at any time, at no cost.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.wrapper_tensors import is_wrapper

if TYPE_CHECKING:
    from torch import Tensor, device

torch = lazy_module("torch")


class EarlyCopies:
    """Copies of one module's weights on the card *torch_device*. Used by the thread that loads models; refers to the module weakly."""

    def __init__(self, torch_device: device) -> None:
        self._device = torch_device
        self._stream: Any = None
        self._sent: Any = None
        self._owner: weakref.ref[Any] | None = None
        self._copies: dict[int, tuple[weakref.ref[Any], Tensor]] = {}

    def size_bytes(self) -> int:
        """What they take."""
        return sum(copy.nbytes for _, copy in self._copies.values())

    def belongs_to(self, module: Any) -> bool:
        """Whether weights of *module* were sent."""
        return bool(self._copies) and self._owner is not None and self._owner() is module

    def send(self, module: Any, weights: Iterable[Tensor], budget_bytes: float) -> int:
        """Queue copies of those of *module*'s *weights* that are page-locked, in order, while *budget_bytes* last. Returns their bytes.

        What was sent of another module is dropped. Ends, with what was sent by then, where the card has no room.
        """
        if self.belongs_to(module):
            return 0
        self.drop()
        if self._stream is None:
            self._stream, self._sent = torch.cuda.Stream(self._device), torch.cuda.Event()
        self._owner = weakref.ref(module)
        chosen = self._with_room(weights, budget_bytes)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # what is queued there may still use the memory
        with torch.cuda.stream(self._stream), torch.no_grad():
            for weight, copy in chosen:
                copy.copy_(weight, non_blocking=True)
        self._sent.record(self._stream)
        self._copies = {id(weight): (weakref.ref(weight), copy) for weight, copy in chosen}
        return sum(copy.nbytes for _, copy in chosen)

    def _with_room(self, weights: Iterable[Tensor], budget_bytes: float) -> list[tuple[Tensor, Tensor]]:
        """Those of *weights* that can be sent, each with memory for its copy, while *budget_bytes* and the card's memory last."""
        chosen: dict[int, tuple[Tensor, Tensor]] = {}
        for weight in weights:
            if budget_bytes < weight.nbytes or id(weight) in chosen or not _can_be_sent(weight):
                continue
            try:
                copy = torch.empty_like(weight, device=self._device, requires_grad=False)
            except torch.OutOfMemoryError:
                break
            copy.record_stream(self._stream)
            chosen[id(weight)] = weight, copy
            budget_bytes -= weight.nbytes
        return list(chosen.values())

    def take(self, weight: Tensor) -> Tensor | None:
        """The copy of *weight*, usable by what the current stream queues from now on, and the caller's; None if it was not sent."""
        if not self._copies:
            return None
        reference, copy = self._copies.get(id(weight), (None, None))
        if reference is None or reference() is not weight:
            return None
        del self._copies[id(weight)]
        torch.cuda.current_stream(self._device).wait_event(self._sent)
        return copy

    def drop(self) -> None:
        """Let go of what was sent."""
        self._copies.clear()
        self._owner = None


def _can_be_sent(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.numel() > 0 and not is_wrapper(weight) and weight.is_contiguous() and weight.is_pinned()
