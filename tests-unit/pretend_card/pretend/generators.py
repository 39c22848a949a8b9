"""Random generators of cards. They draw what the host's do, so that results can be compared; mixing the two kinds is refused."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch

HOST_KIND = torch._C.Generator
_apart = 0


class CardGenerator(torch._C.Generator):
    """A generator of the card ``card_device``."""

    card_device: torch.device

    @property
    def device(self) -> torch.device:
        return self.card_device

    def manual_seed(self, seed: int) -> CardGenerator:
        super().manual_seed(seed + _apart)
        return self


class _Kind(type):
    def __instancecheck__(cls, other: object) -> bool:
        return isinstance(other, HOST_KIND)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, HOST_KIND)


class _Entry:
    """Which card a generator is of; torch hands generators on by address, and addresses are used again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device


def _forget(entries: dict[int, _Entry], address: int, entry: _Entry) -> None:
    if entries.get(address) is entry:
        del entries[address]


def generator_class(machine: Any) -> type:
    """What stands for ``torch.Generator`` on *machine*."""

    class Generator(metaclass=_Kind):
        def __new__(cls, device: Any = "cpu") -> Any:
            card = machine.card_for(device)
            if card is None:
                return HOST_KIND(device)
            made = CardGenerator()
            made.card_device = card.device
            entry = machine.generators[made._cdata] = _Entry(made.card_device)
            weakref.finalize(made, _forget, machine.generators, made._cdata, entry).atexit = False
            made.manual_seed(0)
            return made

    return Generator


@contextlib.contextmanager
def seeded_apart(distance: int) -> Iterator[None]:
    """Card generators seeded with n draw what the host's draw for n + *distance*: samplers seed the host's kind one further."""
    global _apart
    before, _apart = _apart, distance
    try:
        yield
    finally:
        _apart = before
