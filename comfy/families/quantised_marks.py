"""What a file says about its quantised weights: in companions of the weights, in settings beside them and in its metadata.

A layer's weight is quantised when a tensor ``<layer>.comfy_quant`` (JSON) or the table ``_quantization_metadata`` in the file's metadata
gives its format, or when it is fp8 and has a scale, as in older files, whose marker ``scaled_fp8`` with two elements asks for products in
full precision. Kinds that need companions nobody here understands are refused by name: such a model gives wrong pictures without an error.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from comfy.families.model_errors import IncompleteModelError, QuantisedModelError
from comfy.families.weight_source import WeightSource
from comfy.quantisation.formats import FLOAT8, Format, LayerFormat, UnknownFormat, read_settings

Shape = tuple[int, ...]

MARKER = "scaled_fp8"
SETTINGS = ".comfy_quant"
METADATA = "_quantization_metadata"
# The names a companion may have, by the one that settings use.
COMPANIONS = {
    "weight_scale": ("weight_scale", "scale_weight"),
    "weight_scale_2": ("weight_scale_2",),
    "input_scale": ("input_scale", "scale_input"),
    "pre_quant_scale": ("pre_quant_scale",),
    "weight_s_rel": ("weight_s_rel",),
    "weight_s_channel": ("weight_s_channel",),
    "weight_codebook": ("weight_codebook",),
    "weight_correction": ("weight_correction",),
}
BLOCK_SCALES = {"mxfp8": (32, (torch.uint8, torch.float8_e8m0fnu)), "nvfp4": (16, (torch.uint8, torch.float8_e4m3fn))}
GROUPED = ("weight_s_rel", "weight_s_channel", "weight_codebook", "weight_correction")
OPTIONAL = ("weight_scale_2", "pre_quant_scale", *GROUPED)  # of layers with settings only
CODES = 16  # numbers in a codebook
GROUP_STEP = 16  # groups are multiples of this or divide it
ADVICE = (
    "use the model's file in fp16, bf16 or a format of ComfyUI's (docs/reference/quantised-weights.md), or the node pack made for this kind"
)

_FOREIGN = (
    (r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state(\..*)?|SCB|weight_format)$", "bitsandbytes (NF4, FP4 or INT8)"),
    (r"\.(wscales|wtscale|wcscales|smooth_factor|smooth_factor_orig)$", "SVDQuant (nunchaku)"),
    (r"\.(qweight|qzeros|g_idx|scales|zeros)$", "GPTQ or AWQ"),
    (r"\.(weight_quantizer\..*|input_quantizer\..*)$", "ModelOpt"),
    (r"\.weight_scale_inv$", "fp8 in blocks"),
    (r"\.(weight_packed|weight_zero_point|weight_g_idx|zero_point)$", "compressed-tensors"),
    (r"\.weight\._(data|scale|shift|zeropoint)$", "Quanto"),
    (r"\.(W_q|weight\.(scale|zero_point|qdata))$", "HQQ or torchao"),
)
_ANY_FOREIGN = re.compile("|".join(pattern for pattern, _ in _FOREIGN))
_NAMES = [name for names in COMPANIONS.values() for name in names]
_COMPANION = re.compile(rf"(^|\.){MARKER}$|\.({'|'.join(map(re.escape, (*_NAMES, SETTINGS[1:])))})$")


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One quantised weight of a file: its format, its *shape* with padding, and the keys of its companions by :data:`COMPANIONS`' names."""

    layer: LayerFormat
    shape: Shape
    companions: Mapping[str, str]


def is_companion(key: str) -> bool:
    """Whether the tensor *key* only says how another one is to be read."""
    return _COMPANION.search(key) is not None


def read_marks(source: WeightSource) -> dict[str, StoredWeight]:
    """The quantised weights of *source* by name; reads the settings of layers.

    Raises ``QuantisedModelError``, naming the file and the kind, for weights that mean something only with tensors nobody here
    understands, and ``IncompleteModelError`` for companions that are missing or fit no weight.
    """
    shapes = source.shapes()
    foreign = [key for key in shapes if _ANY_FOREIGN.search(key)]
    if foreign:
        kind = next(kind for pattern, kind in _FOREIGN if re.search(pattern, foreign[0]))
        raise QuantisedModelError(f"{source.name} is quantised with {kind}, which is not supported ({_some(foreign)}); {ADVICE}")
    companions = [key for key in shapes if is_companion(key)]
    layers = _layers_of_metadata(source)
    if not companions and not layers:
        return {}
    settings = [key for key in companions if key.endswith(SETTINGS)]
    values = source.take(settings, None) if settings else {}
    layers |= {key.removesuffix(SETTINGS): _settings_of(source, key, value) for key, value in values.items()}
    found = {weight: own for weight in _weights(source, companions, layers) if (own := _stored(source, weight, layers)) is not None}
    lost = [key for key in companions if key.rpartition(".")[2] in OPTIONAL and f"{key.rpartition('.')[0]}.weight" not in found]
    if lost:
        kind = "W4A8" if lost[0].rpartition(".")[2] in GROUPED else "NVFP4 or ModelOpt"
        raise QuantisedModelError(f"{source.name} is quantised with {kind} without ComfyUI's settings ({_some(lost)}); {ADVICE}")
    return found


def _weights(source: WeightSource, companions: list[str], layers: Mapping[str, LayerFormat]) -> list[str]:
    """The weights that have a scale or settings. Raises ``IncompleteModelError`` for a scale without its weight."""
    shapes = source.shapes()
    weights: dict[str, None] = {}
    for key in companions:
        layer, _, last = key.rpartition(".")
        if last in COMPANIONS["weight_scale"]:
            weight = f"{layer}.weight"
            if weight not in shapes:
                raise IncompleteModelError(f"{source.name}: {key} scales {weight}, which is missing")
            weights[weight] = None
    return [*weights, *(f"{layer}.weight" for layer in layers if f"{layer}.weight" in shapes and f"{layer}.weight" not in weights)]


def _stored(source: WeightSource, weight: str, layers: Mapping[str, LayerFormat]) -> StoredWeight | None:
    """What is known of *weight*; None for one that has the settings of fp8 but is stored in more bits."""
    shapes, layer, dtype = source.shapes(), weight.removesuffix(".weight"), source.dtype(weight)
    companions = {name: key for name, keys in COMPANIONS.items() if (key := _first(shapes, layer, keys)) is not None}
    given = layers.get(layer)
    said = str(dtype).removeprefix("torch.")
    if given is None:
        if dtype not in FLOAT8:
            raise QuantisedModelError(f"{source.name}: {weight} is stored as {said} with a scale, which is not supported; {ADVICE}")
        given = LayerFormat(FLOAT8[dtype], _wants_full_precision(shapes, layer))
    elif given.format in FLOAT8.values():
        if dtype not in FLOAT8 and "weight_scale" not in companions:
            return None
        if dtype in FLOAT8:
            given = LayerFormat(FLOAT8[dtype], given.full_precision)
    if dtype != given.format.stored:
        raise QuantisedModelError(f"{source.name}: {weight} is stored as {said}, which is not {given.format.name}; {ADVICE}")
    missing = [name for name in given.format.scales if name not in companions]
    if missing:
        raise IncompleteModelError(f"{source.name}: {weight} is {_said(given.format)}, but its scale {layer}.{missing[0]} is missing")
    if given.format.grouped:
        return _grouped(source, weight, given, companions)
    stored = StoredWeight(given, given.format.logical_shape(shapes[weight]), companions)
    _check_scales(source, weight, stored)
    return stored


def _grouped(source: WeightSource, weight: str, layer: LayerFormat, companions: Mapping[str, str]) -> StoredWeight:
    """The *weight* whose numbers are codes of four or six bits; the scales of its groups tell how many inputs it has."""
    shapes, key = source.shapes(), companions["weight_s_rel"]
    stored, scales = shapes[weight], shapes[key]
    rows, inputs = (scales[0], scales[1] * layer.group) if len(scales) == 2 and layer.group > 0 else (0, 0)
    name = layer.format.name
    if len(stored) != 2 or stored[0] != rows or inputs == 0 or stored[1] * 8 not in (4 * inputs, 6 * inputs):
        raise QuantisedModelError(
            f"{source.name}: {weight} of {list(stored)} cannot be {name} with {key} of {list(scales)} for groups of {layer.group}; {ADVICE}"
        )
    if inputs % GROUP_STEP or (layer.group % GROUP_STEP and GROUP_STEP % layer.group) or layer.rotation < 1 or inputs % layer.rotation:
        raise QuantisedModelError(
            f"{source.name}: {weight} of {[rows, inputs]} is rotated in groups of {layer.rotation} and scaled in groups of {layer.group}, "
            "which do not fit"
        )
    is_uniform = stored[1] * 8 == 6 * inputs
    if is_uniform and (inputs % 32 or layer.group % GROUP_STEP or not companions.keys().isdisjoint(GROUPED[2:])):
        raise QuantisedModelError(f"{source.name}: {weight} has codes of six bits, but groups or a codebook that only four have; {ADVICE}")
    needed = {"weight_s_channel": (rows,), "weight_codebook": (CODES,), "weight_correction": (scales[1], rows)}
    for own, shape in needed.items():
        if own in companions and math.prod(shapes[companions[own]]) != math.prod(shape):
            raise QuantisedModelError(
                f"{source.name}: {companions[own]} has shape {list(shapes[companions[own]])} for {weight}, not {list(shape)}; {ADVICE}"
            )
    if source.dtype(key) not in (torch.float8_e4m3fn, torch.uint8, torch.float32):
        raise QuantisedModelError(f"{source.name}: {key} is stored as {source.dtype(key)}, which {name} is not; {ADVICE}")
    return StoredWeight(layer, (rows, inputs), companions)


def _check_scales(source: WeightSource, weight: str, stored: StoredWeight) -> None:
    key, kind = stored.companions["weight_scale"], stored.layer.format
    found, shape = source.shapes()[key], stored.shape
    what = f"{source.name}: {key} has shape {list(found)} and {source.dtype(key)} for {weight} of {list(shape)}"
    if kind.name in BLOCK_SCALES:
        block, dtypes = BLOCK_SCALES[kind.name]
        if len(shape) != 2 or any(size % kind.padding for size in shape):
            raise QuantisedModelError(f"{source.name}: {weight} of {list(shape)} cannot be {kind.name}; {ADVICE}")
        needed = -(-shape[0] // 128) * 128 * (-(-shape[1] // block // 4) * 4)  # in tiles of 128 rows and 4 blocks
        if math.prod(found) != needed or source.dtype(key) not in dtypes:
            raise QuantisedModelError(f"{what}; {kind.name} has a scale of one byte per {block} numbers, in tiles; {ADVICE}")
    elif math.prod(found) not in (1, shape[0] if shape else 1):
        raise QuantisedModelError(f"{what}; one scale per tensor or per row is supported; {ADVICE}")
    if stored.layer.rotation and shape[-1] % stored.layer.rotation:
        raise QuantisedModelError(
            f"{source.name}: {weight} of {list(shape)} is rotated in groups of {stored.layer.rotation}, which do not fit"
        )


def _said(kind: Format) -> str:
    return "scaled fp8" if kind in FLOAT8.values() else kind.name


def _first(shapes: Mapping[str, Shape], layer: str, names: tuple[str, ...]) -> str | None:
    return next((key for name in names if (key := f"{layer}.{name}") in shapes), None)


def _wants_full_precision(shapes: Mapping[str, Shape], layer: str) -> bool:
    """Whether a marker of a part of the file that *layer* is in asks for it."""
    markers = [key for key, shape in shapes.items() if key.rpartition(".")[2] == MARKER and math.prod(shape) == 2]
    return any(layer.startswith(key.removesuffix(MARKER)) for key in markers)


def _layers_of_metadata(source: WeightSource) -> dict[str, LayerFormat]:
    """Format by layer, as the file's own notes say it."""
    text = source.metadata.get(METADATA)
    if text is None:
        return {}
    try:
        layers: dict[str, Any] = dict(json.loads(text)["layers"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantisedModelError(f"{source.name}: its metadata {METADATA} is not understood ({error!r})") from error
    return {layer: _read(source, f"{layer}.weight", settings) for layer, settings in layers.items()}


def _settings_of(source: WeightSource, key: str, value: torch.Tensor) -> LayerFormat:
    """What the JSON text in the tensor *key* says."""
    try:
        settings: Any = json.loads(bytes(value.flatten().tolist()))
    except (ValueError, TypeError, RecursionError) as error:
        raise QuantisedModelError(f"{source.name}: the settings in {key} are not understood ({error!r})") from error
    return _read(source, key, settings)


def _read(source: WeightSource, key: str, settings: Any) -> LayerFormat:
    try:
        return read_settings(settings)
    except UnknownFormat as error:
        raise QuantisedModelError(f"{source.name} is quantised as {error} ({key}), which is not supported; {ADVICE}") from error
    except (TypeError, ValueError) as error:
        raise QuantisedModelError(f"{source.name}: the settings in {key} are not understood ({error!r})") from error


def _some(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
