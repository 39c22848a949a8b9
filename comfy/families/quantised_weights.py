"""Weight sources whose quantised weights come as what they mean: as quantised tensors, or multiplied out.

With comfy-kitchen a matrix stays in the file's precision. Without it, and for weights that are no matrices, fp8 and int8 are multiplied out
when they are read; other formats need comfy-kitchen.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch

from comfy.families.model_errors import QuantisedModelError
from comfy.families.quantised_marks import METADATA, StoredWeight, is_companion, read_marks
from comfy.families.weight_source import WeightSource
from comfy.quantisation import kitchen
from comfy.quantisation.weights import SETTINGS_ATTRIBUTE, LayerSettings, quantised_weight

Shape = tuple[int, ...]

MULTIPLIED_DTYPE = torch.float32  # what scales are multiplied in, and what such weights count as until a dtype is chosen
WIDE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MULTIPLIES = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")


class QuantisedSource:
    """*source* with *weights*, its quantised ones, as what they mean. The companions are not offered.

    Matrices are quantised tensors over the numbers and scales as read, if *keeps_precision*; others are multiplied out. Raises
    ``QuantisedModelError`` for a weight that cannot be.
    """

    def __init__(self, source: WeightSource, weights: Mapping[str, StoredWeight], keeps_precision: bool) -> None:
        self._source = source
        self._kept = {key: stored for key, stored in weights.items() if keeps_precision and len(stored.shape) == 2}
        self._multiplied = {key: stored for key, stored in weights.items() if key not in self._kept}
        self._shapes = {key: shape for key, shape in source.shapes().items() if not is_companion(key)}
        self._shapes |= {key: stored.shape for key, stored in weights.items()}
        self.name = source.name
        self.metadata = {key: value for key, value in source.metadata.items() if key != METADATA}
        for key, stored in self._multiplied.items():
            self._check_can_multiply(key, stored)

    @property
    def read_bytes(self) -> int | None:
        return self._source.read_bytes

    def shapes(self) -> Mapping[str, Shape]:
        """Those of quantised weights are the ones that they mean, padded to whole blocks."""
        return self._shapes

    def dtype(self, key: str) -> torch.dtype:
        """The stored dtype, or the one that scales are multiplied in."""
        return MULTIPLIED_DTYPE if key in self._kept or key in self._multiplied else self._source.dtype(key)

    def fixed_bytes(self, key: str) -> int | None:
        """What the numbers and scales of a weight that stays quantised take."""
        stored = self._kept.get(key)
        if stored is None:
            return None if key in self._multiplied else self._source.fixed_bytes(key)
        shapes = self._source.shapes()
        return sum(math.prod(shapes[one]) * self._source.dtype(one).itemsize for one in (key, *stored.companions.values()))

    def formats(self) -> Counter[str]:
        """How many weights stay quantised, by format."""
        return Counter(stored.layer.format.name for stored in self._kept.values())

    def multiplied_count(self) -> int:
        """How many are multiplied out."""
        return len(self._multiplied)

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        """The tensors of *keys* in *dtype* (None: as stored, and float32 for what was quantised).

        Quantised tensors are dequantised to it if it is wide enough, else to float32. Products are made in float32 and rounded once.
        """
        asked = list(keys)
        special = self._kept.keys() | self._multiplied.keys()
        taken = self._source.take([key for key in asked if key not in special], dtype)
        wide = dtype if dtype in WIDE_DTYPES and dtype is not None else MULTIPLIED_DTYPE
        taken |= self._quantised([key for key in asked if key in self._kept], wide)
        taken |= self._products([key for key in asked if key in self._multiplied], dtype or MULTIPLIED_DTYPE)
        return {key: taken[key] for key in asked}

    def _quantised(self, keys: list[str], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        companions = {one for key in keys for one in self._kept[key].companions.values()}
        in_bytes = {one for one in companions if self._source.dtype(one).itemsize == 1}  # block scales, which no cast may touch
        stored = self._source.take([*keys, *sorted(in_bytes)], None)
        stored |= self._source.take(sorted(companions - in_bytes), MULTIPLIED_DTYPE)
        weights = {}
        with torch.inference_mode(False):
            for key in keys:
                one = self._kept[key]
                values = {name: stored[companion] for name, companion in one.companions.items()}
                weights[key] = quantised_weight(one.layer, stored[key], values, one.shape, dtype)
                settings = LayerSettings(one.layer, _scalar(values.get("input_scale")), values.get("pre_quant_scale"))
                setattr(weights[key], SETTINGS_ATTRIBUTE, settings)
        return weights

    def _products(self, keys: list[str], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        scales = self._source.take([self._multiplied[key].companions["weight_scale"] for key in keys], MULTIPLIED_DTYPE)
        # Only wide dtypes hold every number of the stored one before it is scaled.
        weights = self._source.take(keys, dtype if dtype in WIDE_DTYPES else MULTIPLIED_DTYPE)
        with torch.inference_mode(False):
            for key in keys:
                weight, scale = weights[key], scales[self._multiplied[key].companions["weight_scale"]]
                product = weight.to(MULTIPLIED_DTYPE) * scale.reshape(-1, *[1] * (weight.ndim - 1))
                if weight.dtype == dtype:  # its own memory: the stored dtype is another one
                    weight.copy_(product)
                else:
                    weights[key] = product.to(dtype)
        return weights

    def _check_can_multiply(self, key: str, stored: StoredWeight) -> None:
        name = stored.layer.format.name
        if "pre_quant_scale" not in stored.companions and name in MULTIPLIES and not stored.layer.rotation:
            return
        if kitchen.is_installed():
            raise QuantisedModelError(f"{self.name}: {key} of {list(stored.shape)} is {name}, which only matrices can be")
        raise QuantisedModelError(f"{self.name}: {key} is {name}, which needs comfy-kitchen; install it: {kitchen.INSTALL}")


def plain_weights(source: WeightSource) -> WeightSource:
    """*source*, or a view of it in which quantised weights are what they mean. Raises what :func:`read_marks` raises."""
    weights = read_marks(source)
    if not weights and not any(map(is_companion, source.shapes())):
        return source
    return QuantisedSource(source, weights, kitchen.is_installed())


def _scalar(scale: torch.Tensor | None) -> torch.Tensor | None:
    return None if scale is None else scale.reshape(())
