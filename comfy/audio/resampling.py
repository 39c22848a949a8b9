"""Another sample rate for a waveform, made on the CPU by SciPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

numpy = lazy_module("numpy")
signal = lazy_module("scipy.signal")
torch = lazy_module("torch")


@dataclass(frozen=True, slots=True)
class Kernel:
    """That of a changed rate: so many zero *crossings* to each side, and a cutoff at the share *rolloff* of the lower rate's half; its
    window is Hann's or, with a *beta*, Kaiser's.
    """

    crossings: int
    rolloff: float
    beta: float | None = None


USUAL = Kernel(crossings=6, rolloff=0.99)  # ComfyUI's


def resampled(waveform: Tensor, from_hz: int, to_hz: int, kernel: Kernel = USUAL) -> Tensor:
    """*waveform* (float, …×samples) at *to_hz* samples per second instead of *from_hz*; on the same device, of the same dtype.

    Band-limited interpolation with a windowed sinc (J. O. Smith, Digital Audio Resampling); what lies beyond the ends counts as
    silence. The length is rounded up. Raises ``ValueError`` for rates below 1 Hz.
    """
    if min(from_hz, to_hz) < 1:
        raise ValueError(f"sound cannot be brought from {from_hz} Hz to {to_hz} Hz; sample rates begin at 1 Hz")
    if from_hz == to_hz or not waveform.shape[-1]:
        return waveform
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    values = waveform.detach().to("cpu", torch.float32).numpy()
    changed = signal.resample_poly(values, up, down, axis=-1, window=_taps(up, down, kernel).astype(numpy.float32))
    return torch.from_numpy(numpy.ascontiguousarray(changed)).to(waveform)


def _taps(up: int, down: int, kernel: Kernel) -> ndarray:
    """The taps, on the grid that both rates share; resample_poly multiplies them by *up*."""
    cutoff = min(up, down) * kernel.rolloff
    half = math.ceil(kernel.crossings * up * down / cutoff)
    crossings = numpy.arange(-half, half + 1) * (cutoff / (up * down))
    crossings = crossings.clip(-kernel.crossings, kernel.crossings)
    if kernel.beta is None:
        window = numpy.cos(crossings * (numpy.pi / kernel.crossings / 2)) ** 2
    else:
        window = numpy.i0(kernel.beta * numpy.sqrt(1 - (crossings / kernel.crossings) ** 2)) / numpy.i0(kernel.beta)
    return numpy.sinc(crossings) * window * (cutoff / (up * down))
