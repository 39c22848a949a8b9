"""Runs diffusers' state-dict converters without letting them copy tensors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_SAME_TENSOR: tuple[Any, ...] = (torch.Tensor.clone, torch.clone, torch.Tensor.contiguous)


class ViewConversionMode(TorchFunctionMode):
    """While active, ``clone``, ``contiguous`` and ``cat`` of a single tensor return that tensor.

    Converters clone and concatenate tensors that they only rename; in this mode the result shares the file's storage. Do not use it
    for code that writes into its clones.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _SAME_TENSOR:
            return args[0]
        if func is torch.cat:
            tensors = args[0] if args else (kwargs or {})["tensors"]
            if len(tensors) == 1:
                return tensors[0]
        return func(*args, **(kwargs or {}))
