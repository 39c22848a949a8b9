"""Moving and converting single tensors, and sizes of dtypes and modules."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.wrapper_tensors import stored_bytes

if TYPE_CHECKING:
    from torch import Tensor, device, dtype
    from torch.nn import Module

torch = lazy_module("torch")


def dtype_size(dtype: dtype) -> int:
    """Bytes of one element."""
    return dtype.itemsize


def module_size(module: Module) -> int:
    """Bytes of a module's parameters and saved buffers; a tensor reachable by several names counts once."""
    tensors = {id(value): value for value in module.state_dict(keep_vars=True).values()}
    return sum(stored_bytes(value) for value in tensors.values())


def cast_to(
    weight: Tensor,
    dtype: dtype | None = None,
    device: device | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    stream: Any = None,
    r: Tensor | None = None,
) -> Tensor:
    """*weight* in *dtype* on *device*; the same tensor when both are right and *copy* is false.

    With *stream* the work is queued there. A move writes into *r* when it is given.
    """
    moves = device is not None and weight.device != device
    if not moves and not copy and (dtype is None or weight.dtype == dtype):
        return weight
    if stream is None:
        scope: Any = contextlib.nullcontext()
    else:
        scope = stream.as_context(stream) if hasattr(stream, "as_context") else stream
    with scope:
        if not moves:
            return weight.to(dtype=dtype, copy=copy)
        if r is None and device is not None and device.type == "cuda" and dtype not in (None, weight.dtype):
            return weight.to(device, non_blocking=non_blocking).to(dtype)  # in one call the host would convert
        target = torch.empty_like(weight, dtype=dtype, device=device) if r is None else r
        return target.copy_(weight, non_blocking=non_blocking)


def archive_model_dtypes(model: Module) -> None:
    """Note each tensor's dtype beside it (``weight_comfy_model_dtype`` …), for code that restores it later."""
    for module in model.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            setattr(module, f"{name}_comfy_model_dtype", tensor.dtype)
