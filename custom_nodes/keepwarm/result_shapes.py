"""Whether a stored result can be one of its node's class, for servers that hand to the next node whatever a provider answers.

Letters: B pictures or clips, H rows, W columns, C channels, T time steps, L samples.
"""

from typing import Any

# Socket type -> how many dimensions the tensor has: BHWC; HW, BHW or BCHW; steps.
_TENSORS = {"IMAGE": (4,), "MASK": (2, 3, 4), "SIGMAS": (1,)}
# Socket type -> what the dict holds, and its dimensions: BCL, BCHW, BCTHW or one more; BCL.
_DICTS = {"LATENT": ("samples", (3, 4, 5, 6)), "AUDIO": ("waveform", (3,))}
_SIMPLE: dict[str, tuple[type, ...]] = {"INT": (int,), "FLOAT": (float, int), "BOOLEAN": (bool, int), "STRING": (str,)}


def fits(class_def: Any, outputs: Any) -> bool:
    """Whether *outputs*, a list of values for each output, is what nodes of *class_def* declare. Raises nothing for plain data."""
    returned = [getattr(kind, "io_type", kind) for kind in getattr(class_def, "RETURN_TYPES", None) or ()]
    lists = [*(getattr(class_def, "OUTPUT_IS_LIST", None) or ()), *[False] * len(returned)]
    if not isinstance(outputs, list | tuple) or len(outputs) != len(returned):
        return False
    return all(
        isinstance(values, list | tuple) and (bool(values) or is_list) and all(_is_one(kind, value) for value in values)
        for values, kind, is_list in zip(outputs, returned, lists)
    )


def _is_one(kind: Any, value: Any) -> bool:
    if not isinstance(kind, str):
        return True
    if kind in _TENSORS:
        return _is_tensor(value, _TENSORS[kind]) and (kind != "IMAGE" or 1 <= value.shape[-1] <= 4)
    if kind in _DICTS:
        name, dimensions = _DICTS[kind]
        rate = value.get("sample_rate") if isinstance(value, dict) else None
        return isinstance(value, dict) and _is_tensor(value.get(name), dimensions) and (kind != "AUDIO" or isinstance(rate, int | float))
    if kind == "CONDITIONING":
        return isinstance(value, list | tuple) and all(_is_pair(pair) for pair in value)
    return kind not in _SIMPLE or value is None or isinstance(value, _SIMPLE[kind])


def _is_pair(pair: Any) -> bool:
    """A tensor, BTC or BC, and what belongs to it."""
    return isinstance(pair, list | tuple) and len(pair) >= 2 and _is_tensor(pair[0], (2, 3, 4, 5)) and isinstance(pair[1], dict)


def _is_tensor(value: Any, dimensions: tuple[int, ...]) -> bool:
    if (type(value).__module__, type(value).__name__) != ("torch", "Tensor"):
        return False
    return bool(value.is_floating_point()) and value.dim() in dimensions
