"""Computes convolutions with large weights over few positions on the CPU as one matrix product.

oneDNN copies a convolution's weights into its own layout at every call. Once such a copy is so large that the C library takes fresh
pages from the system for it, the copy costs more than a convolution over few positions: with 1280 channels on both
sides a product takes a quarter of the time for 2 positions, two thirds for 128, and about as much from 500 on.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.units import MIB

LEAST_WEIGHT_BYTES = 32 * MIB
MOST_POSITIONS = 320


def suits_product(layer: Any, input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether *layer* (a ``Conv2d``) is such a convolution. Depends only on sizes, the dtype and the kind of device."""
    if weight.numel() * 4 < LEAST_WEIGHT_BYTES or input.dtype != torch.float32 or input.device.type != "cpu" or input.dim() != 4:
        return False
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and len(input) * _area(layer, input) <= MOST_POSITIONS


def _sides(layer: Any, input: torch.Tensor) -> list[int]:
    """Height and width of the result."""
    return [
        (input.shape[axis + 2] + 2 * layer.padding[axis] - layer.dilation[axis] * (layer.kernel_size[axis] - 1) - 1) // layer.stride[axis]
        + 1
        for axis in (0, 1)
    ]


def _area(layer: Any, input: torch.Tensor) -> int:
    height, width = _sides(layer, input)
    return height * width


def convolve(layer: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The result of ``conv2d`` with *layer*'s settings, up to rounding: B x C x height x width to B x C out x height x width."""
    height, width = _sides(layer, input)
    columns = F.unfold(input, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    columns = columns.permute(1, 0, 2).reshape(columns.shape[1], -1)
    rows = weight.flatten(1)
    product = torch.mm(rows, columns) if bias is None else torch.addmm(bias[:, None], rows, columns)
    return product.view(len(weight), len(input), height, width).transpose(0, 1).contiguous()
