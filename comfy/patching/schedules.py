"""Small state that sampling depends on, buffers and noise schedules: noted as it was loaded, and put back once patches are undone.

A node that writes its own schedule into the module instead of patching a clone would otherwise change the pictures of later prompts.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from comfy.patching.attribute_paths import resolve_attr

MAX_BUFFER_BYTES = 64 * 1024
SCHEDULE = "model_sampling"
PLAIN = (bool, int, float, str, type(None))


class HasBuffers(Protocol):
    """A patcher, of which the module and its moved buffers matter here; *backup_buffers*: {path: (original, copy on a device)}."""

    @property
    def model(self) -> Any: ...

    @property
    def backup_buffers(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Noted:
    schedule: Any
    numbers: dict[str, Any]
    buffers: dict[str, tuple[Tensor, Tensor]]  # path -> (the buffer, a copy of its values)


class Schedules:
    """What was noted, by module, gone with it. For the thread that runs nodes."""

    def __init__(self) -> None:
        self._noted: weakref.WeakKeyDictionary[Any, _Noted] = weakref.WeakKeyDictionary()

    def note(self, patcher: HasBuffers) -> None:
        """Note the state of *patcher*'s module, which is not patched, unless it was noted before. Modules without parameters have none."""
        module = patcher.model
        if module in self._noted or next(module.parameters(), None) is None:
            return
        schedule = getattr(module, SCHEDULE, None)
        buffers = {path: (buffer, buffer.detach().to("cpu", copy=True)) for path, buffer in _small_buffers(module)}
        self._noted[module] = _Noted(schedule, _numbers(schedule), buffers)

    def restore(self, patcher: HasBuffers) -> list[str]:
        """Put back what differs in *patcher*'s module, whose object patches are undone. Returns the names of what did."""
        module = patcher.model
        noted = self._noted.get(module)
        if noted is None:
            return []
        changed = []
        if noted.schedule is not None and getattr(module, SCHEDULE, None) is not noted.schedule:
            setattr(module, SCHEDULE, noted.schedule)
            changed.append(SCHEDULE)
        for name, value in noted.numbers.items():
            current = getattr(noted.schedule, name, None)
            if type(current) is not type(value) or current != value:
                setattr(noted.schedule, name, value)
                changed.append(f"{SCHEDULE}.{name}")
        moved = [patcher.backup_buffers.get(path, (None, None))[1] for path in noted.buffers]
        read = _read_from_cards([*moved, *(original for original, _ in noted.buffers.values())])
        return changed + [
            path for path, (original, values) in noted.buffers.items() if self._put_back(patcher, path, original, values, read)
        ]

    @staticmethod
    def _put_back(patcher: HasBuffers, path: str, original: Tensor, values: Tensor, read: Mapping[int, Tensor]) -> bool:
        """Whether the buffer at *path*, or the original that a copy on a device stands for, was not what was noted.

        *read* has the values of what lies on cards, by id.
        """
        try:
            holder, name = resolve_attr(patcher.model, path)
        except AttributeError:  # the part of the module that it was in is gone
            return False
        current = holder._buffers.get(name)
        moved = patcher.backup_buffers.get(path, (None, None))[1]
        is_changed = False
        if current is not original and current is not moved:
            holder._buffers[name] = original
            patcher.backup_buffers.pop(path, None)
            is_changed = True
        for tensor in (original, moved if current is moved else None):
            if tensor is not None and not _is_same(read.get(id(tensor), tensor), values):
                tensor.data.copy_(values)
                is_changed = True
        return is_changed


@functools.cache
def schedules() -> Schedules:
    """The process's own."""
    return Schedules()


def _read_from_cards(tensors: Iterable[Tensor | None]) -> dict[int, Tensor]:
    """The values of those *tensors* that lie on cards, by id, as host tensors; each card is waited for once."""
    there: dict[torch.device, dict[int, Tensor]] = {}
    for tensor in tensors:
        if tensor is not None and tensor.device.type != "cpu":
            there.setdefault(tensor.device, {})[id(tensor)] = tensor.detach()
    found = {}
    for own in there.values():
        stored = [tensor.reshape(-1).view(torch.uint8) for tensor in own.values()]
        parts = torch.cat(stored).cpu().split([part.numel() for part in stored])
        for (place, tensor), part in zip(own.items(), parts):
            found[place] = part.clone().view(tensor.dtype).view(tensor.shape)
    return found


def _small_buffers(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((path, buffer) for path, buffer in module.named_buffers() if buffer.nbytes <= MAX_BUFFER_BYTES and not buffer.is_meta)


def _numbers(schedule: Any) -> dict[str, Any]:
    found = vars(schedule) if hasattr(schedule, "__dict__") else {}
    return {name: value for name, value in found.items() if type(value) in PLAIN and name != "training"}


def _is_same(tensor: Tensor, values: Tensor) -> bool:
    if tensor.shape != values.shape or tensor.dtype != values.dtype:
        return False
    here = tensor.detach().to("cpu")
    return torch.equal(here, values) or bool(
        torch.equal(here.isnan(), values.isnan()) and torch.equal(here.nan_to_num(), values.nan_to_num())
    )
