"""Moves the parts of options that hold tensors (attention patches, wrappers) to a device or dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def cast_to_load_options(model_options: dict[str, Any] | None, device: Any = None, dtype: Any = None) -> None:
    """Move everything under ``to_load_options`` in *model_options* to *device* and *dtype* (None: unchanged), in place."""
    if model_options and model_options.get("to_load_options") is not None:
        cast_transformer_options(model_options["to_load_options"], device, dtype)


def cast_transformer_options(transformer_options: dict[str, Any], device: Any = None, dtype: Any = None) -> None:
    """Replace every patch, wrapper and callback that has a method ``to`` by its ``.to(device)`` and ``.to(dtype)``, in place."""
    targets = [target for target in (device, dtype) if target is not None]
    for container in _containers(transformer_options):
        for place in range(len(container)) if isinstance(container, list) else list(container):
            for target in targets:
                if hasattr(container[place], "to"):
                    container[place] = container[place].to(target)


def _containers(options: dict[str, Any]) -> Iterator[Any]:
    yield from options.get("patches", {}).values()
    yield from options.get("patches_replace", {}).values()
    for name in ("wrappers", "callbacks"):
        for keyed in options.get(name, {}).values():
            yield from keyed.values()
