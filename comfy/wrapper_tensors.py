"""Tensors that are made of others, as quantised weights are: numbers and scales under the shape and dtype of what they mean.

Such a class tells its inner tensors through torch's own ``__tensor_flatten__``. It has no memory itself, so whoever counts bytes, copies
or compares memory has to look inside. A leaf: imports nothing of torch at module level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

torch = lazy_module("torch")


def is_wrapper(tensor: object) -> bool:
    """Whether *tensor* is made of other tensors."""
    return hasattr(type(tensor), "__tensor_flatten__")


def inner_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensors whose memory *tensor* uses: itself, or those that it is made of."""
    if not is_wrapper(tensor):
        return [tensor]
    names, _ = cast(Any, tensor).__tensor_flatten__()
    return [part for name in names for part in inner_tensors(getattr(tensor, name))]


def stored_bytes(tensor: Tensor) -> int:
    """The bytes that *tensor*'s elements take in memory, of a quantised one with its scales."""
    return sum(part.nbytes for part in inner_tensors(tensor))


def rebuilt(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A tensor of *tensor*'s kind over ``change(inner)`` for each tensor that it is made of; ``change(tensor)`` of any other."""
    if not is_wrapper(tensor):
        return change(tensor)
    wrapper = cast(Any, tensor)
    names, settings = wrapper.__tensor_flatten__()
    inner = {name: rebuilt(getattr(tensor, name), change) for name in names}
    return cast("Tensor", type(wrapper).__tensor_unflatten__(inner, settings, tensor.shape, None))


def parameter_over(tensor: Tensor) -> Parameter:
    """*tensor* as a parameter without gradient that uses its memory.

    torch's own way would copy the scales of a quantised one; what makes a tensor of another class a parameter is this mark.
    """
    if not is_wrapper(tensor):
        return torch.nn.Parameter(tensor, requires_grad=False)
    own: Any = rebuilt(tensor, lambda part: part)
    own._is_param = True
    return cast("Parameter", own)
