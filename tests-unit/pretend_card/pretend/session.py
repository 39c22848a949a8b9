"""Putting a pretend machine under torch, and taking it away again."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest.mock import patch

import torch

from pretend.guard import register_guard
from pretend.machine import Machine
from pretend.mode import CardMode
from pretend.names import Names


@contextlib.contextmanager
def pretend_cards(count: int = 1, capacity_bytes: int = 8 << 30) -> Iterator[Machine]:
    """A machine with *count* cards of *capacity_bytes*; this thread is in its mode. Other threads enter ``CardMode(machine)`` themselves.

    Raises :class:`~pretend.guard.NoPretendCard` where torch allows none. Afterwards torch is as before; tensors of the cards must not
    be used any more.
    """
    register_guard()
    machine = Machine(count, capacity_bytes)
    mode = CardMode(machine)
    names = Names(machine, mode)
    with contextlib.ExitStack() as stack:
        for name, replacement in {**names.memory(), **names.identity(), **names.queues()}.items():
            stack.enter_context(patch.object(torch.cuda, name, replacement))
        for place, name, replacement in names.elsewhere():
            stack.enter_context(patch.object(place, name, replacement))
        _forget_stand_ins()
        stack.callback(_forget_stand_ins)
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        with mode:
            yield machine
        gc.collect()


def _forget_stand_ins() -> None:
    """Modules may hold stand-ins for torch, imported late, that remember its attributes: they look the replaced one up again."""
    for module in list(sys.modules.values()):
        stand_in = getattr(module, "__dict__", {}).get("torch")
        if isinstance(stand_in, ModuleType) and stand_in is not torch:
            vars(stand_in).pop("Generator", None)
