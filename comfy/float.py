"""Rounding to 8-bit floating point numbers up or down by chance, so that small changes survive on average."""

from __future__ import annotations

import torch
from torch import Tensor

SLICE_ELEMENTS = 4096 * 4096
_FORMATS = {torch.float8_e4m3fn: (4, 3, 7), torch.float8_e5m2: (5, 2, 15)}  # exponent bits, mantissa bits, exponent bias


def stochastic_rounding(value: Tensor, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """*value* in *dtype*. Only the 8-bit floats round by chance, repeatably for equal *seed*; others round to nearest."""
    if dtype not in _FORMATS:
        return value.to(dtype=dtype)
    generator = torch.Generator(device=value.device).manual_seed(seed)
    rounded = torch.empty(value.shape, dtype=dtype, device=value.device)
    rows = max(1, round(value.shape[0] / max(1.0, value.numel() / SLICE_ELEMENTS))) if value.ndim else 1
    for source, target in zip(value.reshape(-1, *value.shape[1:]).split(rows), rounded.view(-1, *value.shape[1:]).split(rows)):
        target.copy_(_round_to_float8(source, dtype, generator))
    return rounded


def _round_to_float8(value: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Half-precision values that *dtype* represents exactly, each next to the one in *value*."""
    exponent_bits, mantissa_bits, bias = _FORMATS[dtype]
    limits = torch.finfo(dtype)
    value = value.clamp(min=limits.min, max=limits.max).half()
    magnitude = value.abs()
    exponent = torch.clamp(torch.floor(torch.log2(magnitude)) + bias, 0, 2**exponent_bits - 1)
    is_normal = exponent > 0
    # The mantissa in units of its last place, in [0, 2**mantissa_bits); adding uniform noise and cutting off rounds by chance.
    normal = (magnitude / 2.0 ** (exponent - bias) - 1.0) * 2**mantissa_bits
    subnormal = magnitude / 2.0 ** (1 - bias - mantissa_bits)
    units = torch.where(is_normal, normal, subnormal)
    units = units + torch.rand(units.size(), dtype=units.dtype, device=units.device, generator=generator)
    fraction = units.floor() / 2**mantissa_bits
    rounded = torch.where(is_normal, 2.0 ** (exponent - bias) * (1.0 + fraction), 2.0 ** (1 - bias) * fraction)
    signed = torch.where(magnitude == 0, torch.zeros_like(value), torch.sign(value)) * rounded
    return signed.clamp(min=limits.min, max=limits.max)
