"""How a linear layer computes with a quantised weight: its values dequantised for each call, or a product in few bits.

Products in few bits are made where the device has them (:func:`allow_few_bits` tells the layers of a model). fp8 and the block formats
quantise the input as the weight is; int8 has a scale per row of the input. As ComfyUI does it, layers with functions of node packs on their
weights and layers whose file asks for full precision dequantise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from comfy.quantisation.formats import LayerFormat
from comfy.quantisation.kitchen import layouts
from comfy.quantisation.weights import LayerSettings, dequantised, in_dtype, is_quantised

WeightFunction = Callable[[Tensor], Tensor]
TAKES_QUANTISED = "takes_quantised"  # on a function of a weight: it is given a quantised weight as it is, and returns it as one


class QuantisedLayer(Protocol):
    """A linear layer with a quantised weight. ``quantised`` says what its file tells of it, ``few_bits`` whether products are."""

    weight: Any
    bias: Any
    weight_function: Sequence[WeightFunction]
    quantised: LayerSettings | None
    few_bits: bool


def prepared_weight(
    weight: Tensor, dtype: torch.dtype | None, device: torch.device | None, functions: Sequence[WeightFunction], keep: bool = False
) -> Tensor:
    """*weight* on *device*, through *functions*, as values in *dtype* (None: its own).

    With *keep* it stays quantised if every function can work with it as it is.
    """
    value = weight if device is None else weight.to(device=device)
    if dtype is not None:
        value = in_dtype(value, dtype) if is_quantised(value) else value.to(dtype, copy=bool(functions))
    for function in functions:
        if not getattr(function, TAKES_QUANTISED, False):
            value = dequantised(value)
        value = function(value)
    return value if keep else dequantised(value)


def linear(layer: QuantisedLayer, input: Tensor, weight: Tensor, prepare_bias: Callable[[], Tensor | None]) -> Tensor:
    """(…, in) to (…, out) through *layer* with its *weight*, wherever that is; *prepare_bias* gives its bias for *input*."""
    settings = cast(LayerSettings, layer.quantised)
    if settings.pre_quant_scale is not None:
        input = input * settings.pre_quant_scale.to(input)
    weight = prepared_weight(weight, input.dtype, input.device, layer.weight_function, keep=layer.few_bits)
    bias = prepare_bias()
    if not is_quantised(weight) or not settings.layer.format.quantises_input:
        return F.linear(input, weight, bias)
    kitchen = layouts()
    rows = input.reshape(-1, input.shape[-1])
    scale = None if settings.input_scale is None else settings.input_scale.to(input.device)
    quantised = kitchen.QuantizedTensor.from_float(rows, cast(Any, weight)._layout_cls, scale=scale)
    return F.linear(quantised, weight, bias).reshape(*input.shape[:-1], -1)


def plain_fp8_linear(layer: QuantisedLayer, input: Tensor, weight: Tensor, prepare_bias: Callable[[], Tensor | None]) -> Tensor:
    """(…, in) to (…, out) through *layer*, whose *weight* is fp8 without a scale: a product in fp8. Larger inputs are cut off."""
    limit = torch.finfo(torch.float8_e4m3fn).max
    rows = input.reshape(-1, input.shape[-1]).clamp(-limit, limit).to(torch.float8_e4m3fn)
    product = F.linear(_unscaled(rows, input.dtype), _unscaled(weight.to(input.device), input.dtype), prepare_bias())
    return product.reshape(*input.shape[:-1], -1)


def _unscaled(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """fp8 *numbers* as a quantised tensor that means them."""
    kitchen, name = layouts(), "TensorCoreFP8E4M3Layout"
    one = torch.ones((), device=numbers.device)
    params = kitchen.get_layout_class(name).Params(scale=one, orig_dtype=dtype, orig_shape=tuple(numbers.shape))
    return cast(Tensor, kitchen.QuantizedTensor(numbers, name, params))


def allow_plain_fp8(module: torch.nn.Module) -> int:
    """Let the layers of *module* whose weights are plain fp8 (e4m3fn) make products in fp8. Returns how many do."""
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "few_bits") and layer.quantised is None]
    for layer in layers:
        layer.few_bits = layer.weight.dtype == torch.float8_e4m3fn
    return sum(layer.few_bits for layer in layers)


def allow_few_bits(module: torch.nn.Module, supports: Callable[[LayerFormat], bool]) -> int:
    """Let the layers of *module* whose formats the device *supports* make products in few bits. Returns how many do."""
    count = 0
    for layer in module.modules():
        settings = getattr(layer, "quantised", None)
        if isinstance(settings, LayerSettings):
            one = cast(QuantisedLayer, layer)
            one.few_bits = not settings.layer.full_precision and "RowScaled" not in one.weight._layout_cls and supports(settings.layer)
            count += one.few_bits
    return count
