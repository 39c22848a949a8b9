"""Quantised weights as tensors: what they mean, in which dtype, and making them anew from changed values.

A quantised weight is comfy-kitchen's ``QuantizedTensor``: numbers and scales, under the shape of the weight and the dtype to which it is
dequantised. Nothing here imports comfy-kitchen except making such a tensor.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from comfy.quantisation.formats import FLOAT8, FORMATS, Format, LayerFormat, settings_of
from comfy.quantisation.kitchen import layouts

SETTINGS_ATTRIBUTE = "layer_settings"  # what a file says about the layer, on the tensor from which the layer takes it


@dataclasses.dataclass(frozen=True, slots=True)
class LayerSettings:
    """What belongs to a layer with a quantised weight: its format, the scale that its input is quantised with (None: none is given) and
    factors of the input's columns.
    """

    layer: LayerFormat
    input_scale: Tensor | None = None
    pre_quant_scale: Tensor | None = None


def is_quantised(tensor: object) -> bool:
    """Whether *tensor* is a quantised weight."""
    return hasattr(type(tensor), "requantize_from_float")


def quantised_weight(
    layer: LayerFormat, numbers: Tensor, scales: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """The weight of *shape* that *numbers* and *scales* (by suffix, as the file names them) mean, in *dtype*, over their memory."""
    kind: Format = layer.format
    main = scales[kind.scales[0]]
    settings: dict[str, Any] = {"scale": main}
    layout = kind.layout
    if kind.grouped:
        settings = _grouped(layer, scales)
    elif kind.name == "nvfp4":
        settings = {"scale": scales["weight_scale_2"].reshape(()), "block_scale": main.view(torch.float8_e4m3fn)}
    elif kind.name == "mxfp8":
        settings = {"scale": main.view(torch.float8_e8m0fnu)}
    elif main.numel() == 1:
        settings = {"scale": main.reshape(())}
    else:
        settings = {"scale": main.reshape(-1, 1)}
        layout = "RowScaledFP8Layout" if kind.name.startswith("float8_") else layout
    if layer.rotation and not kind.grouped:
        settings |= {"convrot": True, "convrot_groupsize": layer.rotation}
    kitchen = layouts()
    params = kitchen.get_layout_class(layout).Params(**settings, orig_dtype=dtype, orig_shape=tuple(shape))
    return cast(Tensor, kitchen.QuantizedTensor(numbers, layout, params))


def _grouped(layer: LayerFormat, scales: Mapping[str, Tensor]) -> dict[str, Any]:
    """comfy-kitchen's settings of a weight whose numbers are codes: the scales of groups and rows, and what a file may leave out."""
    groups = scales["weight_s_rel"]
    return {
        "scale": groups.view(torch.float8_e4m3fn) if groups.dtype == torch.uint8 else groups,
        "s_channel": scales["weight_s_channel"].reshape(-1),
        "codebook": scales.get("weight_codebook"),
        "correction": scales.get("weight_correction"),
        "group_size": layer.group,
        "convrot_groupsize": layer.rotation,
    }


def with_shape(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """*weight* cut to *shape*, over the same memory: numbers are padded to whole blocks, which only the layer can tell."""
    own = cast(Any, weight)
    cut = type(own)(own._qdata, own._layout_cls, dataclasses.replace(own._params, orig_shape=tuple(shape)))
    setattr(cut, SETTINGS_ATTRIBUTE, getattr(weight, SETTINGS_ATTRIBUTE, None))
    return cast(Tensor, cut)


def in_dtype(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """*weight*, quantised, so that it is dequantised to *dtype*; over the same memory."""
    own = cast(Any, weight)
    if own._params.orig_dtype == dtype:
        return weight
    return cast(Tensor, type(own)(own._qdata, own._layout_cls, dataclasses.replace(own._params, orig_dtype=dtype)))


def dequantised(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The values of *weight* in *dtype* (None: its own): a new tensor of a quantised one, else *weight*, cast if necessary."""
    if not is_quantised(weight):
        return weight if dtype is None else weight.to(dtype)
    return (weight if dtype is None else in_dtype(weight, dtype)).dequantize()


def requantised(weight: Tensor, values: Tensor, seed: int) -> Tensor:
    """*values* in the format of the quantised *weight*, with new scales, on their device; rounded by chance with *seed*.

    Returns *values* in *weight*'s dtype where their shape does not fit the format, as a change that makes a weight larger.
    """
    own = cast(Any, weight)
    if values.ndim != 2:
        return values.to(weight.dtype)
    again = own.requantize_from_float(values, scale="recalculate", stochastic_rounding=seed)
    return in_dtype(again, weight.dtype)


def stored_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """*tensors* as a file holds them: quantised ones as numbers, scales and settings under the names that ComfyUI gives them."""
    stored: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if not is_quantised(tensor):
            stored[key] = tensor
            continue
        layer = key.removesuffix(".weight")
        settings = getattr(tensor, SETTINGS_ATTRIBUTE, None) or LayerSettings(_format_of(tensor))
        stored |= {name: part.contiguous() for name, part in cast(Any, tensor).state_dict(key).items()}
        extra = {"input_scale": settings.input_scale, "pre_quant_scale": settings.pre_quant_scale}
        stored |= {f"{layer}.{name}": value for name, value in extra.items() if value is not None}
        stored[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(settings_of(settings.layer)).encode()), dtype=torch.uint8)
    return stored


def _format_of(weight: Tensor) -> LayerFormat:
    """The format of a quantised *weight*, told from itself."""
    own = cast(Any, weight)
    named = next((one for one in FORMATS.values() if one.layout == own._layout_cls), None) or FLOAT8[own._qdata.dtype]
    params = own._params
    rotation = params.convrot_groupsize if getattr(params, "convrot", named.grouped) else 0
    return LayerFormat(named, rotation=rotation, group=params.group_size if named.grouped else 0)
