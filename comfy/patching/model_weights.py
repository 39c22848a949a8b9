"""A module's weights under the names that node packs and LoRA files use for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from comfy.families.weight_names import WeightNames, WeightPart
from comfy.patching.attribute_paths import get_attr


class ModelWeights:
    """Reads *module*'s weights by ComfyUI's names, through its ``weight_names`` table where it has one.

    A weight that the table does not cover goes by its own path. Holds the module; make one per operation.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._names: WeightNames | None = getattr(module, "weight_names", None)

    def keys(self) -> list[str]:
        """Every saved weight and buffer, in the module's order; a name made of several parameters stands where its first is."""
        return list(dict.fromkeys(self.key_of(path) for path in self._module.state_dict(keep_vars=True)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def key_of(self, path: str) -> str:
        """The name of the weight that the parameter at *path* holds, or a part of it."""
        return path if self._names is None else self._names.name_of(path) or path

    def paths(self, key: str) -> tuple[str, ...]:
        """Where the parameters that make up *key* are. An unknown key is taken for a path."""
        return tuple(part.parameter for part in self._parts(key))

    def is_whole(self, key: str) -> bool:
        """Whether *key* is exactly one parameter."""
        return len(self._parts(key)) == 1

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape *key*'s weight has for those who use its name."""
        if self._names is not None and key in self._names:
            return self._names.shape(key)
        return tuple(get_attr(self._module, key).shape)

    def get(self, key: str, read: Callable[[str], Tensor] | None = None) -> Tensor:
        """The weight: a view if it is one parameter, else a new tensor. *read* replaces reading a parameter by its path.

        Raises ``AttributeError`` for an unknown key.
        """
        source = self.parameter if read is None else read
        if self._names is None or key not in self._names:
            return source(key)
        return self._names.join(key, source, torch.cat)

    def split(self, key: str, tensor: Tensor) -> dict[str, Tensor]:
        """*tensor*, a new value for *key*, cut into values by parameter path (views). Raises ``ValueError`` for a wrong shape."""
        if self._names is None or key not in self._names:
            return {key: tensor}
        if self.is_whole(key) and tuple(tensor.shape) != self._names.shape(key):  # a patch that makes the weight larger
            return {self.paths(key)[0]: tensor}
        return self._names.split(key, tensor)

    def parameter(self, path: str) -> Tensor:
        """The tensor at *path* as it is now."""
        return get_attr(self._module, path)

    def _parts(self, key: str) -> tuple[WeightPart, ...]:
        parts: Any = None if self._names is None else self._names.get(key)
        return (WeightPart(key),) if parts is None else parts


def weight_keys(module: torch.nn.Module) -> list[str]:
    """The names of *module*'s weights as node packs know them."""
    return ModelWeights(module).keys()
