"""Putting other tensors in place of a module's parameters, and the pristine ones back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from comfy.patching.attribute_paths import resolve_attr
from comfy.patching.layers import Layer
from comfy.wrapper_tensors import parameter_over


class Backup(NamedTuple):
    """What a replaced parameter was: the pristine parameter itself, or None when its host memory was given up.

    ``inplace_update`` is always False here and kept for node packs that read it; ``patched`` tells a changed value from a mere
    copy on a device, ``identity`` which patches made it (None: not known).
    """

    weight: Tensor | None
    inplace_update: bool = False
    patched: bool = False
    identity: bytes | None = None


def as_parameter(tensor: Tensor) -> torch.nn.Parameter:
    """*tensor* as a parameter without gradient; one made in inference mode is copied when the mode is off."""
    if isinstance(tensor, torch.nn.Parameter):
        return tensor
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        tensor = tensor.clone()
    return parameter_over(tensor)


class Placement:
    """Replaces parameters of *module* and remembers the pristine ones in *backups*, a dict that all clones share.

    Keys of *backups* are parameter paths. No tensor that anything refers to is ever written in place.
    """

    def __init__(self, module: torch.nn.Module, backups: dict[str, Backup]) -> None:
        self._module = module
        self._backups = backups
        self._holders: dict[str, tuple[Any, str]] = {}

    def know(self, layers: Iterable[Layer]) -> None:
        """The parameters of *layers* are found without following their paths, as long as nobody replaces a layer."""
        for layer in layers:
            for attribute, path in layer.parameters.items():
                self._holders[path] = layer.module, attribute

    def _holder(self, path: str) -> tuple[Any, str]:
        """The module that has the parameter, and its name there."""
        return self._holders.get(path) or resolve_attr(self._module, path)

    def pristine(self, path: str) -> Tensor:
        """The unpatched parameter, wherever it is."""
        backup = self._backups.get(path)
        return self.current(path) if backup is None or backup.weight is None else backup.weight

    def current(self, path: str) -> Tensor:
        """The parameter as it is now."""
        holder, name = self._holder(path)
        found: Tensor = getattr(holder, name)
        return found

    def is_patched(self, path: str) -> bool:
        """Whether a changed value is in place."""
        backup = self._backups.get(path)
        return backup is not None and getattr(backup, "patched", True)  # a node pack's own record has no such field

    def identity(self, path: str) -> bytes | None:
        """Which patches made the value in place; None when that is not known, or none did."""
        return getattr(self._backups.get(path), "identity", None)

    def put(self, path: str, value: Tensor, patched: bool, keep_pristine: bool = True, identity: bytes | None = None) -> None:
        """Put *value* in place of the parameter. A pristine value is given up only if *value* is a copy of it."""
        pristine = self.pristine(path)
        keep = patched or keep_pristine
        holder, name = self._holder(path)
        setattr(holder, name, as_parameter(value))
        self._backups[path] = Backup(pristine if keep else None, False, patched, identity)

    def take_out(self, path: str, pristine: Tensor) -> Tensor | None:
        """Undo what other code put in place of the parameter, which was *pristine* until then. Returns it; None if nothing was.

        Where the code wrote into the parameter itself, what it noted as the original is put back.
        """
        noted = self._backups.pop(path, None)
        current = self.current(path)
        if current is pristine and noted is None:
            return None
        original = noted.weight if current is pristine and noted is not None and noted.weight is not None else pristine
        if original is not current:
            holder, name = self._holder(path)
            setattr(holder, name, as_parameter(original))
        return current

    def put_back(self, path: str, home: torch.device) -> None:
        """Put the pristine parameter back, the very object if it is at *home*; otherwise a copy there."""
        backup = self._backups.pop(path, None)
        holder, name = self._holder(path)
        current = getattr(holder, name)
        pristine = current if backup is None else backup.weight
        if pristine is None:  # the host copy was given up
            pristine = current.to(home, copy=home.type == "cpu")
        elif pristine.device.type != home.type:
            is_there = backup is not None and not getattr(backup, "patched", True) and current.device.type == home.type
            pristine = current if is_there else pristine.to(home)
        if pristine is not current:
            setattr(holder, name, as_parameter(pristine))


class BufferPlacement:
    """The same for buffers: all of a module's are copied to a device and put back, unless something replaced them meanwhile."""

    def __init__(self, module: torch.nn.Module, backups: dict[str, Any]) -> None:
        self._module = module
        self._backups = backups

    def move(self, receive: Callable[[Tensor], Tensor]) -> None:
        """Replace each buffer by ``receive(buffer)``."""
        for path, buffer in list(self._module.named_buffers()):
            if path not in self._backups:
                holder, name = resolve_attr(self._module, path)
                moved = receive(buffer)
                if moved is not buffer:
                    holder._buffers[name] = moved
                    self._backups[path] = (buffer, moved)

    def put_back(self) -> None:
        """Put the original buffers back where the copies still are."""
        for path, (original, moved) in self._backups.items():
            try:
                holder, name = resolve_attr(self._module, path)
            except AttributeError:  # an object patch took the buffer's module away; it comes back with its own buffer
                continue
            if holder._buffers.get(name) is moved:
                holder._buffers[name] = original
        self._backups.clear()
