"""What lies in the arguments and results of an operation: in lists, tuples and dicts, and nowhere else. Quicker than torch's own trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from pretend.generators import HOST_KIND
from pretend.tensors import CardTensor

CONTAINERS = (list, tuple, dict)
# What is passed over at once: most arguments are of these, and asking whether something is a tensor takes torch long.
VALUES = {int, float, bool, complex, str, type(None), torch.dtype, torch.layout, torch.memory_format}


def leaves(value: Any, found: list[Any] | None = None) -> list[Any]:
    """Everything in *value* that is no list, tuple or dict, in order, after what is in *found*."""
    found = [] if found is None else found
    if not isinstance(value, CONTAINERS):
        found.append(value)
        return found
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, CONTAINERS):
            leaves(part, found)
        else:
            found.append(part)
    return found


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """*value* with *change* made to each of its leaves; containers of other kinds than these three become these."""
    if not isinstance(value, CONTAINERS):
        return change(value)
    if isinstance(value, dict):
        return {name: changed(part, change) if isinstance(part, CONTAINERS) else change(part) for name, part in value.items()}
    parts = [changed(part, change) if isinstance(part, CONTAINERS) else change(part) for part in value]
    return parts if isinstance(value, list) else tuple(parts)


class Operands:
    """What a call is given, by kind: tensors of cards, tensors of the host, generators, devices."""

    __slots__ = ("cards", "devices", "generators", "hosts")

    def __init__(self, args: Iterable[Any], kwargs: dict[str, Any]) -> None:
        self.cards: list[CardTensor] = []
        self.hosts: list[torch.Tensor] = []
        self.generators: list[Any] = []
        self.devices: list[torch.device] = []
        self._sort(args)
        if kwargs:
            self._sort(kwargs.values())

    def _sort(self, values: Iterable[Any]) -> None:
        for value in values:
            kind = type(value)
            if kind is CardTensor:
                self.cards.append(value)
            elif kind in VALUES:
                continue
            elif isinstance(value, CONTAINERS):
                self._sort(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, torch.Tensor):
                (self.cards if isinstance(value, CardTensor) else self.hosts).append(value)
            elif isinstance(value, HOST_KIND):
                self.generators.append(value)
            elif isinstance(value, torch.device):
                self.devices.append(value)

    def is_of_host(self) -> bool:
        """Whether nothing here is of a card or names one, or draws."""
        if self.cards or self.generators:
            return False
        return not self.devices or all(device.type != "cuda" for device in self.devices)
