"""The three filters of the equalizer, which run on the CPU, by SciPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

signal = lazy_module("scipy.signal")
torch = lazy_module("torch")

Shape = Literal["low shelf", "peak", "high shelf"]


def equalized(waveform: Tensor, sample_rate_hz: int, shape: Shape, gain_db: float, frequency_hz: float, quality: float) -> Tensor:
    """*waveform* (float, …×samples) with the frequencies around, below or above *frequency_hz* changed by *gain_db*; clipped to -1…1.

    One second-order filter of the Audio EQ Cookbook (R. Bristow-Johnson), from silence. Raises ``ValueError`` for a frequency that
    sound of this rate does not have.
    """
    if 2 * frequency_hz >= sample_rate_hz:
        raise ValueError(
            f"sound with {sample_rate_hz} samples per second has no frequencies from {sample_rate_hz / 2:g} Hz on; "
            f"choose one below that instead of {frequency_hz:g} Hz, or a gain of 0"
        )
    numerator, denominator = _biquad(shape, gain_db, 2 * math.pi * frequency_hz / sample_rate_hz, quality)
    filtered = signal.lfilter(numerator, denominator, waveform.detach().to("cpu", torch.float64).numpy(), axis=-1)
    return torch.from_numpy(filtered).clamp(-1.0, 1.0).to(waveform)


def _biquad(shape: Shape, gain_db: float, angle: float, quality: float) -> tuple[Any, Any]:
    """Numerator and denominator; *angle* is the frequency in radians per sample."""
    amplitude = 10 ** (gain_db / 40)
    cosine, alpha = math.cos(angle), math.sin(angle) / (2 * quality)
    if shape == "peak":
        top = (1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude)
        return top, (1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude)
    # The high shelf is the low one mirrored at a quarter of the rate: the cosine's sign turns, and that of the middle terms.
    sign = 1 if shape == "low shelf" else -1
    cosine *= sign
    more, less, bend = amplitude + 1, amplitude - 1, 2 * math.sqrt(amplitude) * alpha
    top = (
        amplitude * (more - less * cosine + bend),
        sign * 2 * amplitude * (less - more * cosine),
        amplitude * (more - less * cosine - bend),
    )
    return top, (more + less * cosine + bend, -sign * 2 * (less + more * cosine), more + less * cosine - bend)
