"""Convolutions with large weights over few positions, on the CPU, as one matrix product.

oneDNN copies a convolution's weights into a layout of its own at every call. From the size at which the C library takes fresh pages
from the system for each such copy, it costs more than the convolution itself while there are few positions: with 1280 channels on both
sides a product takes a quarter of the time for 2 positions, two thirds for 128, and about as much from 500 on.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.units import MIB

LEAST_WEIGHT_BYTES = 32 * MIB
MOST_POSITIONS = 320


def suits_product(layer: Any, input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether *layer* (a ``Conv2d``) is such a convolution; depends on nothing but sizes, dtype and kind of device."""
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
    """What ``conv2d`` gives with *layer*'s settings for batch x in x height x width, up to rounding."""
    height, width = _sides(layer, input)
    columns = F.unfold(input, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    columns = columns.permute(1, 0, 2).reshape(columns.shape[1], -1)
    rows = weight.flatten(1)
    product = torch.mm(rows, columns) if bias is None else torch.addmm(bias[:, None], rows, columns)
    return product.view(len(weight), len(input), height, width).transpose(0, 1).contiguous()
