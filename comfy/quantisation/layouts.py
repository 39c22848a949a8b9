"""comfy-kitchen's layouts under the names that ComfyUI gives them. Importing this imports comfy-kitchen, so only its users do, late.

What is added to comfy-kitchen's: rounding by chance for weights that are quantised again after a LoRA changed them, with a seed, so that
the same change gives the same weight (ComfyUI does it alike); and fp8 with one scale per row.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy_kitchen as ck
import torch
from comfy_kitchen.float_utils import F4_E2M1_MAX, F8_E4M3_MAX, e8m0_to_f32, from_blocked, pack_uint4
from comfy_kitchen.tensor import (
    AsymW4A8Int8Layout,
    QuantizedLayout,
    QuantizedTensor,
    TensorCoreMXFP8Layout,
    TensorCoreNVFP4Layout,
    TensorWiseINT8Layout,
    get_layout_class,
    register_layout_class,
    register_layout_op,
)
from comfy_kitchen.tensor import TensorCoreFP8Layout as KitchenFP8Layout
from torch import Tensor

__all__ = [
    "AsymW4A8Int8Layout",
    "QuantizedLayout",
    "QuantizedTensor",
    "RowScaledFP8Layout",
    "SeededMXFP8Layout",
    "SeededNVFP4Layout",
    "TensorCoreFP8E4M3Layout",
    "TensorCoreFP8E5M2Layout",
    "TensorWiseINT8Layout",
    "ck",
    "get_layout_class",
    "register_layout_class",
    "register_layout_op",
]

Quantised = tuple[Tensor, Any]


class _FP8Layout(KitchenFP8Layout):
    """fp8 with one scale. Without a scale numbers stay as they are; "recalculate" makes the largest the largest that fp8 holds."""

    DTYPE = torch.float8_e4m3fn

    @classmethod
    def quantize(
        cls, tensor: Tensor, scale: Tensor | float | str | None = None, stochastic_rounding: int = 0, inplace_ops: bool = False, **_: Any
    ) -> Quantised:
        """(numbers, scale with shape and dtype); *stochastic_rounding* is a seed, 0 rounds to the nearest. *tensor* is not changed."""
        own = _recalculated(tensor, cls.DTYPE) if isinstance(scale, str) else 1.0 if scale is None else scale
        one = torch.as_tensor(own, dtype=torch.float32, device=tensor.device)
        numbers = _rounded(tensor * (1.0 / one).to(tensor.dtype), cls.DTYPE, stochastic_rounding) if stochastic_rounding > 0 else None
        if numbers is None:
            numbers = ck.quantize_per_tensor_fp8(tensor, one, cls.DTYPE)
        return numbers, cls.Params(scale=one, orig_dtype=tensor.dtype, orig_shape=tuple(tensor.shape))


class TensorCoreFP8E4M3Layout(_FP8Layout):
    """Four bits of exponent, three of mantissa."""


class TensorCoreFP8E5M2Layout(_FP8Layout):
    """Five bits of exponent, two of mantissa."""

    DTYPE = torch.float8_e5m2


class RowScaledFP8Layout(QuantizedLayout):
    """fp8 with one scale per row: the scale has shape (rows, 1). It is dequantised to compute with."""

    Params = KitchenFP8Layout.Params
    get_plain_tensors = KitchenFP8Layout.get_plain_tensors
    state_dict_tensors = KitchenFP8Layout.state_dict_tensors

    @classmethod
    def quantize(cls, tensor: Tensor, dtype: torch.dtype = torch.float8_e4m3fn, stochastic_rounding: int = 0, **_: Any) -> Quantised:
        """(numbers, scales with shape and dtype); the largest of each row becomes the largest that fp8 holds."""
        rows = tensor.abs().amax(dim=1, keepdim=True).float() / torch.finfo(dtype).max
        scales = torch.where(rows == 0, 1.0, rows)
        numbers = _rounded((tensor.float() / scales).to(tensor.dtype), dtype, stochastic_rounding)
        return numbers, cls.Params(scale=scales, orig_dtype=tensor.dtype, orig_shape=tuple(tensor.shape))

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Any) -> Tensor:
        """Numbers times their row's scale."""
        return (qdata.float() * params.scale).to(params.orig_dtype)

    @classmethod
    def requantize_kwargs(cls, qtensor: QuantizedTensor) -> dict[str, Any]:
        """The dtype of the numbers."""
        return {"dtype": qtensor._qdata.dtype}


class SeededMXFP8Layout(TensorCoreMXFP8Layout):
    """fp8 in blocks of 32 numbers of a row, with a power of two for each."""

    @classmethod
    def quantize(cls, tensor: Tensor, stochastic_rounding: int = 0, **_: Any) -> Quantised:
        """(numbers, scales with shape and dtype); see :class:`_FP8Layout` for the seed."""
        numbers, params = super().quantize(tensor)
        if stochastic_rounding > 0:
            rows, columns = numbers.shape
            scales = e8m0_to_f32(from_blocked(params.scale.view(torch.uint8), rows, columns // 32)).repeat_interleave(32, 1)
            padded = torch.nn.functional.pad(tensor.float(), (0, columns - tensor.shape[1], 0, rows - tensor.shape[0]))
            numbers = _rounded(torch.where(scales > 0, padded / scales, 0.0), torch.float8_e4m3fn, stochastic_rounding)
        return numbers, params


class SeededNVFP4Layout(TensorCoreNVFP4Layout):
    """Four bits per number, an fp8 scale for each 16 of a row, and one scale for all."""

    @classmethod
    def quantize(cls, tensor: Tensor, scale: Tensor | float | str | None = None, stochastic_rounding: int = 0, **_: Any) -> Quantised:
        """(numbers, scales with shape and dtype); see :class:`_FP8Layout` for the seed."""
        largest = tensor.abs().max().float() / (F8_E4M3_MAX * F4_E2M1_MAX)
        own = torch.where(largest == 0, 1.0, largest) if scale is None or isinstance(scale, str) else scale
        numbers, params = super().quantize(tensor, torch.as_tensor(own, dtype=torch.float32, device=tensor.device))
        if stochastic_rounding > 0:
            rows, columns = numbers.shape[0], numbers.shape[1] * 2
            blocks = from_blocked(params.block_scale, rows, columns // 16).float() * params.scale
            scales = blocks.repeat_interleave(16, 1)
            padded = torch.nn.functional.pad(tensor.float(), (0, columns - tensor.shape[1], 0, rows - tensor.shape[0]))
            numbers = _rounded_to_four_bits(torch.where(scales > 0, padded / scales, 0.0), stochastic_rounding)
        return numbers, params


def _recalculated(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale that makes the largest of *tensor* the largest of *dtype*, its inverse within what *tensor*'s own dtype holds."""
    scale = tensor.abs().amax().float() / torch.finfo(dtype).max
    if tensor.dtype in (torch.float32, torch.bfloat16):
        return scale
    limits = torch.finfo(tensor.dtype)
    return 1.0 / torch.clamp(1.0 / scale, min=limits.min, max=limits.max)


def _rounded(values: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    """*values* in the fp8 type *dtype*, rounded by chance with *seed*; to the nearest with 0."""
    if seed <= 0:
        limits = torch.finfo(dtype)
        return values.clamp(limits.min, limits.max).to(dtype)
    return ck.stochastic_rounding_fp8(values, _noise(values, seed), dtype)


def _noise(values: Tensor, seed: int) -> Tensor:
    """A byte for each of *values*, from *seed*."""
    generator = torch.Generator(device=values.device).manual_seed(seed)
    return torch.randint(0, 256, values.shape, dtype=torch.uint8, device=values.device, generator=generator)


def _rounded_to_four_bits(values: Tensor, seed: int) -> Tensor:
    """*values* (rows x an even number) as E2M1, two to a byte, each rounded by chance to one of the two numbers around it."""
    levels = torch.tensor((0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), device=values.device)
    size = values.abs().clamp(max=6.0)
    below = (torch.searchsorted(levels, size, right=True) - 1).clamp(max=6)
    share = (size - levels[below]) / (levels[below + 1] - levels[below])
    codes = below + (share * 256.0 > _noise(values, seed).float() + 0.5)
    return pack_uint4((codes + 8 * torch.signbit(values)).to(torch.uint8))


def with_dtype(weight: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
    """*weight*, over the same memory, that dequantises to *dtype*."""
    return QuantizedTensor(weight._qdata, weight._layout_cls, dataclasses.replace(weight._params, orig_dtype=dtype))


def register() -> None:
    """Tell comfy-kitchen these layouts, under ComfyUI's names."""
    named = {
        "TensorCoreFP8Layout": TensorCoreFP8E4M3Layout,
        "TensorCoreFP8E4M3Layout": TensorCoreFP8E4M3Layout,
        "TensorCoreFP8E5M2Layout": TensorCoreFP8E5M2Layout,
        "RowScaledFP8Layout": RowScaledFP8Layout,
        "TensorCoreMXFP8Layout": SeededMXFP8Layout,
        "TensorCoreNVFP4Layout": SeededNVFP4Layout,
    }
    for name, layout in named.items():
        register_layout_class(name, layout)
