"""Weights that a file stores as small numbers with companions (scales, tables) that give them their meaning.

Scaled fp8 is multiplied out when it is read: a weight is its numbers times ``<layer>.scale_weight`` or ``<layer>.weight_scale``, one for
the tensor or one per row. Every other kind is refused, as a model without its companions gives wrong pictures without an error.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy.families.model_errors import IncompleteModelError, QuantisedModelError
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
FORMATS = ("float8_e4m3fn", "float8_e5m2")
MULTIPLIED_DTYPE = torch.float32  # what scales are multiplied in, and what such weights count as until a dtype is chosen
WIDE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCALES = (".scale_weight", ".weight_scale")
INPUT_SCALES = (".scale_input", ".input_scale")  # for products in fp8, which are not made: weights are multiplied out
MARKER = "scaled_fp8"
SETTINGS = ".comfy_quant"
METADATA = "_quantization_metadata"

_FOREIGN = (
    (r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state(\..*)?|SCB|weight_format)$", "bitsandbytes (NF4, FP4 or INT8)"),
    (r"\.(wscales|wtscale|wcscales|smooth_factor|smooth_factor_orig)$", "SVDQuant (nunchaku)"),
    (r"\.(qweight|qzeros|g_idx|scales|zeros)$", "GPTQ or AWQ"),
    (r"\.(weight_scale_2|pre_quant_scale|weight_quantizer\..*|input_quantizer\..*)$", "NVFP4 or ModelOpt"),
    (r"\.weight_scale_inv$", "fp8 in blocks"),
    (r"\.(weight_packed|weight_zero_point|weight_g_idx|zero_point)$", "compressed-tensors"),
    (r"\.weight\._(data|scale|shift|zeropoint)$", "Quanto"),
    (r"\.(W_q|weight\.(scale|zero_point|qdata))$", "HQQ or torchao"),
)
_ANY_FOREIGN = re.compile("|".join(pattern for pattern, _ in _FOREIGN))
_COMPANION = re.compile(rf"(^|\.){MARKER}$|({'|'.join(map(re.escape, (*SCALES, *INPUT_SCALES, SETTINGS)))})$")
ADVICE = "use the model's file in fp16, bf16 or (scaled) fp8, or the node pack made for this kind"


class ScaledSource:
    """*source* with its scaled weights multiplied out; *scales* gives the scale's name by weight. The companions are not offered."""

    def __init__(self, source: WeightSource, scales: Mapping[str, str]) -> None:
        self._source = source
        self._scales = scales
        self.name = source.name
        self.metadata = {key: value for key, value in source.metadata.items() if key != METADATA}

    @property
    def read_bytes(self) -> int | None:
        return self._source.read_bytes

    def shapes(self) -> Mapping[str, Shape]:
        return {key: shape for key, shape in self._source.shapes().items() if not _COMPANION.search(key)}

    def dtype(self, key: str) -> torch.dtype:
        """The stored dtype, or the one that scales are multiplied in."""
        return MULTIPLIED_DTYPE if key in self._scales else self._source.dtype(key)

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        """The tensors of *keys* in *dtype* (None: scaled ones in float32). Products are made in float32 and rounded once."""
        asked = list(keys)
        # Only wide dtypes hold every number of the stored one before it is scaled.
        is_wide = dtype in WIDE_DTYPES
        scaled = [key for key in asked if key in self._scales]
        scales = self._source.take([self._scales[key] for key in scaled], MULTIPLIED_DTYPE)
        taken = self._source.take([key for key in asked if is_wide or key not in self._scales], dtype)
        if not is_wide:
            taken |= self._source.take(scaled, MULTIPLIED_DTYPE)
        with torch.inference_mode(False):
            for key in scaled:
                weight, scale = taken[key], scales[self._scales[key]]
                product = weight.to(MULTIPLIED_DTYPE) * scale.reshape(-1, *[1] * (weight.ndim - 1))
                if dtype is None or is_wide:
                    weight.copy_(product)  # its own memory: the stored dtype is another one
                else:
                    taken[key] = product.to(dtype)
        return {key: taken[key] for key in asked}


def plain_weights(source: WeightSource) -> WeightSource:
    """*source*, or a view of it in which scaled weights are multiplied out.

    Raises ``QuantisedModelError``, naming the file and the kind, for weights that mean something only with tensors nobody here
    understands, and ``IncompleteModelError`` for scales without a weight they fit.
    """
    shapes = source.shapes()
    foreign = [key for key in shapes if _ANY_FOREIGN.search(key)]
    if foreign:
        kind = next(kind for pattern, kind in _FOREIGN if re.search(pattern, foreign[0]))
        raise QuantisedModelError(f"{source.name} is quantised with {kind}, which is not supported ({_some(foreign)}); {ADVICE}")
    companions = [key for key in shapes if _COMPANION.search(key)]
    layers = _layers_of_metadata(source)
    if not companions and not layers:
        return source
    scales = dict(_scale(source, key, shapes) for key in companions if key.endswith(SCALES))
    settings = [key for key in companions if key.endswith(SETTINGS)]
    values = source.take(settings, None) if settings else {}
    layers |= {key.removesuffix(SETTINGS): _settings_of(source, key, value) for key, value in values.items()}
    for layer, format_name in layers.items():
        weight = f"{layer}.weight"
        if weight in shapes and format_name not in FORMATS:
            raise QuantisedModelError(f"{source.name} is quantised as {format_name} ({weight}), which is not supported; {ADVICE}")
        if weight in shapes and weight not in scales and source.dtype(weight) in FLOAT8:
            raise IncompleteModelError(f"{source.name}: {weight} is scaled fp8, but its scale {layer}.weight_scale is missing")
    return ScaledSource(source, scales)


def scaled_count(source: WeightSource) -> int:
    """How many weights of *source* are multiplied out when they are read."""
    return len(source._scales) if isinstance(source, ScaledSource) else 0


def _scale(source: WeightSource, key: str, shapes: Mapping[str, Shape]) -> tuple[str, str]:
    """(weight, scale) for the scale *key*."""
    weight = f"{key.rpartition('.')[0]}.weight"
    if weight not in shapes:
        raise IncompleteModelError(f"{source.name}: {key} scales {weight}, which is missing")
    if source.dtype(weight) not in FLOAT8:
        kind = str(source.dtype(weight)).removeprefix("torch.")
        raise QuantisedModelError(f"{source.name}: {weight} is stored as {kind} with a scale, which is not supported; {ADVICE}")
    found, rows = math.prod(shapes[key]), shapes[weight][0] if shapes[weight] else 1
    if found not in (1, rows):
        raise QuantisedModelError(
            f"{source.name}: {key} has shape {list(shapes[key])} for {weight} of {list(shapes[weight])}; one scale per tensor or per row "
            f"is supported; {ADVICE}"
        )
    return weight, key


def _layers_of_metadata(source: WeightSource) -> dict[str, str]:
    """Format by layer, as the file's own notes say it."""
    text = source.metadata.get(METADATA)
    if text is None:
        return {}
    try:
        return {layer: str(settings.get("format", FORMATS[0])) for layer, settings in json.loads(text)["layers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantisedModelError(f"{source.name}: its metadata {METADATA} is not understood ({error!r})") from error


def _settings_of(source: WeightSource, key: str, value: torch.Tensor) -> str:
    """The format that the JSON text in the tensor *key* names."""
    try:
        settings: Any = json.loads(bytes(value.flatten().tolist()))
        return str(settings.get("format", FORMATS[0]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise QuantisedModelError(f"{source.name}: the settings in {key} are not understood ({error!r})") from error


def _some(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
