"""Attention by kernels of packages: SageAttention, flash-attn, comfy-kitchen. A package is imported when its function is first called.

Each takes what :func:`comfy.ldm.modules.attention_functions.attention_pytorch` takes, and hands it to that function where its own kernel
cannot compute it; a kernel that fails is named once. Shapes: B batch, N tokens, C channels, H heads, D head width.
"""

import functools
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from comfy.ldm.modules.attention_functions import AttentionFunction, attention_function, attention_pytorch, broadcast_mask, repeated_heads
from comfy.residency.platform_facts import is_oom

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


@attention_function
def attention_sage(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """SageAttention: 8-bit products. Callers that pass ``low_precision_attention=False`` get torch's, as do masks it does not take."""
    kernel = _kernel("sageattention", "sageattn")
    fits = options.get("low_precision_attention") is not False and (mask is None or _takes_masks(kernel))
    out = None
    if fits:
        keys, values = repeated_heads(q, k, v)
        masking = {} if mask is None else {"attn_mask": broadcast_mask(mask)}
        settings = {"tensor_layout": "HND", "is_causal": False, "sm_scale": options.get("scale"), "smooth_k": False}
        out = _tried("SageAttention", functools.partial(kernel, q, keys, values, **settings, **masking))
    return _or_torchs(out, (q, k, v), mask, options)


@attention_function
def attention3_sage(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """SageAttention 3 for Blackwell cards: 4-bit products of half precision, for many tokens, without masks or a scale of the caller's."""
    many = q.shape[-2] > SAGE3_LEAST_TOKENS and q.shape[-1] < SAGE3_WIDTH_LIMIT
    out = None
    if many and mask is None and options.get("scale") is None and q.device.type == "cuda" and q.dtype in HALVES:
        keys, values = repeated_heads(q, k, v)
        operands = [tensor.contiguous() for tensor in (q, keys, values)]
        out = _tried("SageAttention 3", lambda: _kernel("sageattn3", "sageattn3_blackwell")(*operands, is_causal=False))
    return _or_torchs(out, (q, k, v), mask, options)


@attention_function
def attention_flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """The package flash-attn, for half precision without masks."""
    out = None
    if mask is None and q.dtype in HALVES:
        operands = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        kernel = functools.partial(_kernel("flash_attn", "flash_attn_func"), *operands, softmax_scale=options.get("scale"), causal=False)
        out = _tried("flash-attn", kernel)
        out = None if out is None else out.transpose(1, 2)
    return _or_torchs(out, (q, k, v), mask, options)


@attention_function
def attention_comfy_kitchen_int8(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    attn_precision: torch.dtype | None,
    options: Mapping[str, Any],
) -> torch.Tensor:
    """comfy-kitchen's attention in 8-bit integers."""
    kernel = functools.partial(
        _kernel("comfy_kitchen", "int8_attention"), q, k, v, scale=options.get("scale"), attn_mask=broadcast_mask(mask)
    )
    return _or_torchs(_tried("comfy-kitchen", kernel), (q, k, v), mask, options)


def _tried(package: str, kernel: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """What *kernel* computes; None, and a warning, where it refuses. Raises when memory runs out."""
    try:
        return kernel()
    except Exception as error:  # packages refuse shapes and cards with errors of all kinds
        if is_oom(error):
            raise
        _say_failure(package, f"{type(error).__name__}: {error}"[:300])
        return None


def _or_torchs(
    out: torch.Tensor | None, qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor], mask: torch.Tensor | None, options: Mapping[str, Any]
) -> torch.Tensor:
    """*out* (B x H x N x D); torch's attention where there is none."""
    if out is not None:
        return out
    return attention_pytorch(*qkv, qkv[0].shape[1], mask=mask, skip_reshape=True, skip_output_reshape=True, **options)


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
