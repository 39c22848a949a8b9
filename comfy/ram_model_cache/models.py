"""The parts of ComfyUI's patchers and loaded models that the RAM model cache touches. Portable: standard library only."""

from __future__ import annotations

from typing import Any, Protocol


class Patcher(Protocol):
    """A module with the changes that a workflow makes to it. A clone's ``parent`` is the patcher it was made from."""

    model: Any
    parent: Patcher | None

    def clone(self) -> Patcher:
        """Another patcher of the same module."""

    def is_dynamic(self) -> bool:
        """Whether the owner faults its weights in on demand."""

    def pinned_memory_size(self) -> int:
        """Bytes of page-locked memory of a dynamic one."""


class LoadedModel(Protocol):
    """An item of the list of models on devices: a weak reference to a patcher, whose death a finalizer notes."""

    @property
    def model(self) -> Patcher | None:
        """The patcher, or None when it is gone."""
