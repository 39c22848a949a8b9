"""Tensors of the pretend cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from pretend.cards import Block, Card
from pretend.streams import Queue


class CardTensor(torch.Tensor):
    """A tensor on ``cuda:N`` for torch and for the program; its numbers are ``inner``, in host memory. Only the mode makes them."""

    inner: torch.Tensor
    block: Block
    card: Card
    run: Callable[..., Any] | None = None  # the session's, for threads outside the mode

    @staticmethod
    def __new__(cls, inner: torch.Tensor, card: Card, queue: Queue) -> CardTensor:
        block = card.block_of(inner, queue)
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=card.device
        )
        made.inner, made.block, made.card = inner, block, card
        return made

    def __init__(self, *_: Any) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if CardTensor.run is None:
            raise RuntimeError(f"{func} on a tensor of a pretend card that is gone")
        return CardTensor.run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"CardTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    __array__ = numpy
