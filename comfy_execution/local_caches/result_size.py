"""How much RAM a node's result keeps in use, as far as that can be measured without knowing the types."""

import logging
from typing import Any

log = logging.getLogger(__name__)


def host_bytes(value: Any) -> int:
    """The bytes of RAM behind a result (anything with ``outputs``, or the values themselves).

    Counted, each object once: tensors in host memory, arrays, byte strings, and models that tell their ``model_size()``, directly or
    through their ``patcher``. What else there is counts nothing. Does not recurse and imports no library.
    """
    total_bytes = 0
    seen: set[int] = set()
    waiting: list[Any] = [getattr(value, "outputs", value)]
    while waiting:
        current = waiting.pop()
        if current is None or isinstance(current, bool | int | float | str) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, dict):
            waiting += current.values()
        elif isinstance(current, list | tuple | set | frozenset):
            waiting += current
        else:
            total_bytes += _object_bytes(current)
    return total_bytes


def _object_bytes(value: Any) -> int:
    try:
        if isinstance(value, bytes | bytearray):
            return len(value)
        if callable(getattr(value, "numel", None)) and callable(getattr(value, "element_size", None)):
            device = getattr(value, "device", None)
            return value.numel() * value.element_size() if getattr(device, "type", "cpu") == "cpu" else 0
        if isinstance(getattr(value, "nbytes", None), int):
            return value.nbytes
        measure = getattr(getattr(value, "patcher", value), "model_size", None)
        return int(measure()) if callable(measure) else 0
    except Exception:
        log.warning("The size of a %s is unknown, as asking for it failed", type(value).__qualname__, exc_info=True)
        return 0
