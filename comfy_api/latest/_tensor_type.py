"""A class that stands for ``torch.Tensor`` in annotations and ``isinstance`` without importing torch."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
else:

    class _TensorStandIn(type):
        def __instancecheck__(cls, thing: object) -> bool:
            torch = sys.modules.get("torch")
            return torch is not None and isinstance(thing, torch.Tensor)

        def __subclasscheck__(cls, other: type) -> bool:
            torch = sys.modules.get("torch")
            return other is cls or (torch is not None and issubclass(other, torch.Tensor))

    class Tensor(metaclass=_TensorStandIn):
        """``isinstance(x, Tensor)`` is true for torch tensors, and asking never imports torch. There are no instances."""


__all__ = ["Tensor"]
