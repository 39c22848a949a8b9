"""A node's result as a text and some bytes, and back. Reading never runs anything that was read.

The text is JSON. A tensor stands in it as ``{"tensor": name}`` and its values in the bytes, which are a safetensors file. Tuples and
dictionaries are marked, because JSON would turn tuples into lists and keys into texts.
"""

import json
from types import ModuleType
from typing import Any

PLAIN = (type(None), bool, int, float, str)


class NotPlainError(ValueError):
    """The value holds something, such as a model, that has no meaning outside this process."""


def encode(value: Any) -> tuple[str, bytes]:
    """The text and the bytes for *value*: None, booleans, numbers, texts, tensors, and lists, tuples and dictionaries of them.

    Raises ``NotPlainError`` for anything else, subclasses included.
    """
    tensors: dict[str, Any] = {}
    text = json.dumps(_described(value, tensors))
    return text, _tensor_files().save(tensors)


def decode(text: str, data: bytes) -> Any:
    """The value that :func:`encode` was given; its tensors are on the CPU. Raises an error of JSON or safetensors if it is damaged."""
    return _rebuilt(json.loads(text), _tensor_files().load(data))


def _tensor_files() -> ModuleType:
    """The module that writes safetensors; imported at first use, because it takes torch along and servers start without that."""
    from safetensors import torch as tensor_files

    return tensor_files


def _described(value: Any, tensors: dict[str, Any]) -> Any:
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is list:
        return [_described(item, tensors) for item in value]
    if kind is tuple:
        return {"tuple": [_described(item, tensors) for item in value]}
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": {key: _described(item, tensors) for key, item in value.items()}}
    if kind.__module__ == "torch" and kind.__name__ == "Tensor" and str(value.layout) == "torch.strided":
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors takes no two tensors that share memory
        return {"tensor": name}
    raise NotPlainError(f"a {kind.__module__}.{kind.__name__} cannot be kept")


def _rebuilt(described: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(described, list):
        return [_rebuilt(item, tensors) for item in described]
    if not isinstance(described, dict):
        return described
    ((kind, inner),) = described.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "tuple":
        return tuple(_rebuilt(item, tensors) for item in inner)
    return {key: _rebuilt(item, tensors) for key, item in inner.items()}
