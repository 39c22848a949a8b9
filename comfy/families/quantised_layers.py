"""Which layers of a module take a quantised weight as it is. The others get its values."""

from collections.abc import Mapping
from typing import Any

import torch

import comfy.ops
from comfy.quantisation.formats import FORMATS
from comfy.quantisation.weights import SETTINGS_ATTRIBUTE, dequantised, is_quantised, with_shape

PADDINGS = {one.padding for one in FORMATS.values()}


def settled(module: torch.nn.Module, values: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """*values*, by parameter of *module*, with the quantised ones as their layers take them.

    A linear layer takes its weight quantised, and is told what the file says of it; for any other parameter the weight is dequantised
    (a new tensor in *dtype*; None: in its own). Padding is cut off.
    """
    layers = dict(module.named_modules())
    found = dict(values)
    for name, value in values.items():
        path, _, leaf = name.rpartition(".")
        layer: Any = layers.get(path)
        takes = leaf == "weight" and isinstance(layer, comfy.ops.disable_weight_init.Linear)
        if takes and getattr(layer, "quantised", None) is not None:
            layer.quantised = None  # it had such a weight before
        if not is_quantised(value):
            continue
        shape = tuple(layer.weight.shape) if takes else _shape(layer, leaf, value)
        if takes:
            layer.quantised = getattr(value, SETTINGS_ATTRIBUTE)
            found[name] = with_shape(value, shape)
        else:
            with torch.inference_mode(False):
                found[name] = dequantised(value, dtype)[tuple(slice(size) for size in shape)].contiguous()
    return found


def is_padded(stored: tuple[int, ...], needed: tuple[int, ...]) -> bool:
    """Whether a quantised weight of the shape *needed* may have the shape *stored*: padded to whole blocks."""
    return len(stored) == len(needed) and any(
        all(-(-size // padding) * padding == found for found, size in zip(stored, needed)) for padding in PADDINGS
    )


def _shape(layer: torch.nn.Module | None, leaf: str, value: torch.Tensor) -> tuple[int, ...]:
    parameter = getattr(layer, leaf, None)
    own = tuple(value.shape) if parameter is None else tuple(parameter.shape)
    return own if len(own) == value.ndim else tuple(value.shape)
