"""What a value of a socket type must at least be, so that a foreign one cannot fail the nodes that it is given to.

Tensor letters: B pictures or clips, H rows, W columns, C channels, T time steps or tokens, L samples. Of types that are not named here
nothing is known. Tensors are known by their class, so torch is not imported.
"""

from collections.abc import Callable, Mapping
from typing import Any

from comfy_execution.providers.snapshot import is_tensor

# Whole numbers of more bits cannot even be shown.
_MAX_INT_BITS = 1024


def check_of(kind: str) -> Callable[[Any], bool] | None:
    """What tells whether a value can be one of socket type *kind*; None when any can. Never raises for plain data."""
    return _CHECKS.get(kind)


def _is_floating(value: Any, dimensions: range) -> bool:
    return is_tensor(value) and value.is_floating_point() and value.dim() in dimensions


def _is_image(value: Any) -> bool:
    """BHWC."""
    return _is_floating(value, range(4, 5)) and 1 <= value.shape[3] <= 4


def _is_mask(value: Any) -> bool:
    """HW, BHW or BCHW."""
    return _is_floating(value, range(2, 5))


def _is_latent(value: Any) -> bool:
    """A dict with ``samples``: BCL, BCHW, BCTHW or one more."""
    if not _has_names(value) or not _is_floating(value.get("samples"), range(3, 7)):
        return False
    mask, places = value.get("noise_mask"), value.get("batch_index")
    return (mask is None or is_tensor(mask)) and (places is None or isinstance(places, list | tuple))


def _is_audio(value: Any) -> bool:
    """A dict with ``waveform``, BCL, and ``sample_rate`` in samples per second."""
    if not _has_names(value) or not _is_floating(value.get("waveform"), range(3, 4)):
        return False
    rate = value.get("sample_rate")
    return isinstance(rate, int | float) and rate > 0


def _is_conditioning(value: Any) -> bool:
    """A list of pairs: a tensor, BTC or BC, and a dict of what belongs to it."""
    return isinstance(value, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) >= 2 and _is_floating(pair[0], range(2, 6)) and _has_names(pair[1]) for pair in value
    )


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


_TENSOR_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "IMAGE": _is_image,
    "MASK": _is_mask,
    "LATENT": _is_latent,
    "AUDIO": _is_audio,
    "CONDITIONING": _is_conditioning,
    "SIGMAS": lambda value: _is_floating(value, range(1, 2)),
}
_SIMPLE_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "INT": lambda value: isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS,
    "FLOAT": lambda value: isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS),
    "BOOLEAN": lambda value: isinstance(value, bool | int),
    "STRING": lambda value: isinstance(value, str),
}


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_CHECKS = {**{kind: _or_none(check) for kind, check in _SIMPLE_KINDS.items()}, **_TENSOR_KINDS}
