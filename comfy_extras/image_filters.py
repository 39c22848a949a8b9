"""Convolves pictures and latents with small square kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")


def gaussian_kernel(kernel_size: int, sigma: float, device: Any = None, dtype: Any = None) -> Tensor:
    """A Gaussian kernel (*kernel_size* × *kernel_size*) with sum 1 over the square -1…1, the unit of *sigma*; float32 by default."""
    steps = torch.linspace(-1, 1, kernel_size, device=device)
    distance = torch.sqrt(steps[:, None] * steps[:, None] + steps * steps)
    weights = torch.exp(-(distance * distance) / (2.0 * sigma * sigma))
    return (weights / weights.sum()).to(torch.float32 if dtype is None else dtype)


def sharpening_kernel(kernel_size: int, sigma: float, alpha: float, device: Any = None, dtype: Any = None) -> Tensor:
    """A kernel with sum 1 that subtracts a Gaussian blur times 10 *alpha* and makes up for it in the centre."""
    kernel = gaussian_kernel(kernel_size, sigma, device, dtype) * -(alpha * 10)
    centre = kernel_size // 2
    kernel[centre, centre] = kernel[centre, centre] - kernel.sum() + 1.0
    return kernel


def convolve_mirrored(values_BCHW: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel with *kernel* (K×K, K odd), mirroring the picture at its edges; the shape stays the same.

    Raises ``ValueError`` when the picture is too small to be mirrored.
    """
    radius, channels = kernel.shape[-1] // 2, values_BCHW.shape[1]
    height, width = values_BCHW.shape[-2:]
    if radius >= min(height, width):
        raise ValueError(f"a radius of {radius} needs more than {radius} pixels per side; this picture is {width}x{height}")
    mirrored = torch.nn.functional.pad(values_BCHW, (radius,) * 4, "reflect")
    return torch.nn.functional.conv2d(mirrored, kernel.repeat(channels, 1, 1).unsqueeze(1), groups=channels)
