"""Letting torch's CPU build handle tensors whose device is a card.

torch keeps a table of device guards, one per kind of device, in its library ``c10``. A CPU build leaves the card's place empty, and any
tensor on one then ends in an error. torch itself has a guard that does nothing, for builds with cards on machines without one: it takes
the place of a guard that counts no devices. So such a guard is entered, made of a table of functions that all return 0, and torch is
asked to look: no compiler is needed.
"""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

import torch

TABLE = "_ZN3c104impl26device_guard_impl_registryE"
CARD = 1  # c10's number of the kind
METHODS = 64  # more than a guard has
_kept: list[Any] = []  # what torch may still point to


class NoPretendCard(RuntimeError):
    """This torch cannot be given a pretend card; the text says why."""


def register_guard() -> None:
    """Enter a guard for cards, once per process; it stays, and does nothing by itself. Raises :class:`NoPretendCard`."""
    if _kept:
        return
    if torch.backends.cuda.is_built():
        raise NoPretendCard("this torch was built for real cards; the pretend card needs the CPU build")
    name = {"Windows": "c10.dll", "Darwin": "libc10.dylib"}.get(platform.system(), "libc10.so")
    library = Path(torch.__file__).with_name("lib") / name
    try:
        table = (ctypes.c_void_p * (CARD + 1)).in_dll(ctypes.CDLL(str(library)), TABLE)
    except (OSError, ValueError) as error:
        raise NoPretendCard(f"{library} does not show its table of device guards: {error}") from error
    no_devices = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(lambda guard: 0)
    methods = (ctypes.c_void_p * METHODS)(*[ctypes.cast(no_devices, ctypes.c_void_p)] * METHODS)
    guard = (ctypes.c_void_p * 1)(ctypes.addressof(methods))
    entered = ctypes.addressof(guard)
    table[CARD] = entered
    torch._C._ensureCUDADeviceGuardSet()
    if table[CARD] == entered:
        table[CARD] = None
        raise NoPretendCard("torch did not put its own guard in place of one without devices")
    _kept.extend((no_devices, methods, guard))
