"""Attention by kernels of packages: SageAttention, flash-attn, comfy-kitchen. A package is imported when its function is first called.

Each takes what :func:`comfy.ldm.modules.attention_functions.attention_pytorch` takes, and hands it to that function where its own kernel
cannot compute it; a kernel that fails is named once. Shapes: B batch, N tokens, C channels, H heads, D head width.
"""

import functools
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch

from comfy.ldm.modules.attention_functions import (
    AttentionFunction,
    attention_pytorch,
    broadcast_mask,
    join_heads,
    repeated_heads,
    split_qkv,
    wrap_attn,
)

log = logging.getLogger(__name__)
Kernel = Callable[..., torch.Tensor]
HALVES = (torch.float16, torch.bfloat16)
SAGE3_LEAST_TOKENS, SAGE3_WIDTH_LIMIT = 1024, 256  # below, and from that width on, torch's kernels are quicker, or the only ones


@functools.cache
def _kernel(module: str, name: str) -> Kernel:
    """The function *name* of *module*. Raises ``ImportError`` when the package is missing, or has no such function."""
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        raise ImportError(f"{module} has no function {name}: update the package")
    return found


@functools.cache
def _say_failure(package: str, reason: str) -> None:
    log.warning("%s cannot compute an attention (%s): torch's is used there", package, reason)


@functools.cache
def _takes_masks(kernel: Kernel) -> bool:
    return "attn_mask" in inspect.signature(kernel).parameters


@wrap_attn
def attention_sage(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """SageAttention: 8-bit products. Callers that pass ``low_precision_attention=False`` get torch's, as do masks it does not take."""
    kernel = _kernel("sageattention", "sageattn")
    fits = kwargs.get("low_precision_attention") is not False and (mask is None or _takes_masks(kernel))
    q, k, v = split_qkv(q, k, v, heads, skip_reshape, bool(kwargs.get("enable_gqa")))
    out = None
    if fits:
        keys, values = repeated_heads(q, k, v)
        masking = {} if mask is None else {"attn_mask": broadcast_mask(mask)}
        options = {"tensor_layout": "HND", "is_causal": False, "sm_scale": kwargs.get("scale"), "smooth_k": False}
        out = _tried("SageAttention", functools.partial(kernel, q, keys, values, **options, **masking))
    return _result(out, (q, k, v), heads, mask, skip_output_reshape, kwargs)


@wrap_attn
def attention3_sage(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """SageAttention 3 for Blackwell cards: 4-bit products of half precision, for many tokens, without masks or a scale of the caller's."""
    q, k, v = split_qkv(q, k, v, heads, skip_reshape, bool(kwargs.get("enable_gqa")))
    many = q.shape[-2] > SAGE3_LEAST_TOKENS and q.shape[-1] < SAGE3_WIDTH_LIMIT
    out = None
    if many and mask is None and kwargs.get("scale") is None and q.device.type == "cuda" and q.dtype in HALVES:
        keys, values = repeated_heads(q, k, v)
        operands = [tensor.contiguous() for tensor in (q, keys, values)]
        out = _tried("SageAttention 3", lambda: _kernel("sageattn3", "sageattn3_blackwell")(*operands, is_causal=False))
    return _result(out, (q, k, v), heads, mask, skip_output_reshape, kwargs)


@wrap_attn
def attention_flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """The package flash-attn, for half precision without masks."""
    q, k, v = split_qkv(q, k, v, heads, skip_reshape, bool(kwargs.get("enable_gqa")))
    out = None
    if mask is None and q.dtype in HALVES:
        operands = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        kernel = functools.partial(_kernel("flash_attn", "flash_attn_func"), *operands, softmax_scale=kwargs.get("scale"), causal=False)
        out = _tried("flash-attn", kernel)
        out = None if out is None else out.transpose(1, 2)
    return _result(out, (q, k, v), heads, mask, skip_output_reshape, kwargs)


@wrap_attn
def attention_comfy_kitchen_int8(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """comfy-kitchen's attention in 8-bit integers."""
    q, k, v = split_qkv(q, k, v, heads, skip_reshape, bool(kwargs.get("enable_gqa")))
    kernel = functools.partial(
        _kernel("comfy_kitchen", "int8_attention"), q, k, v, scale=kwargs.get("scale"), attn_mask=broadcast_mask(mask)
    )
    return _result(_tried("comfy-kitchen", kernel), (q, k, v), heads, mask, skip_output_reshape, kwargs)


def _tried(package: str, kernel: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """What *kernel* computes; None, and a warning, where it refuses. Raises when memory runs out."""
    try:
        return kernel()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # packages refuse shapes and cards with errors of all kinds
        _say_failure(package, f"{type(error).__name__}: {error}"[:300])
        return None


def _result(
    out: torch.Tensor | None,
    qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    heads: int,
    mask: torch.Tensor | None,
    skip_output_reshape: bool,
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """*out* (B x H x N x D) in the caller's shape; torch's attention where there is none."""
    if out is None:
        return attention_pytorch(*qkv, heads, mask=mask, skip_reshape=True, skip_output_reshape=skip_output_reshape, **kwargs)
    return out if skip_output_reshape else join_heads(out)


def has_int8_attention() -> bool:
    """Whether comfy-kitchen is there and this machine's card has its attention. Imports it, which takes seconds."""
    if importlib.util.find_spec("comfy_kitchen") is None:
        return False
    is_available = getattr(importlib.import_module("comfy_kitchen"), "int8_attention_is_available", None)
    return bool(is_available is not None and is_available())


def _is_installed(module: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(module) is not None


# name -> (the function, whether its package is there)
PACKAGED: dict[str, tuple[AttentionFunction, Callable[[], bool]]] = {
    "sage": (attention_sage, _is_installed("sageattention")),
    "sage3": (attention3_sage, _is_installed("sageattn3")),
    "flash": (attention_flash, _is_installed("flash_attn")),
    "comfy_kitchen_int8": (attention_comfy_kitchen_int8, has_int8_attention),
}
