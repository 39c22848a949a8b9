"""Putting a pretend machine under torch, and taking it away again."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
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
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        with mode:
            yield machine
        gc.collect()
