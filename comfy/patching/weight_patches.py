"""The changes of one patcher to its module's weights and objects, before they are computed."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from comfy.patching.added_patch import AddedPatch
from comfy.patching.model_options import copy_containers
from comfy.patching.patch_table import Patches, PatchTable, SharedPatches, add_patch, fork_table, split_patch_key


def add_to_table(
    table: Patches, known: Collection[str], patches: Mapping[Any, Any], strength_patch: float, strength_model: float
) -> list[Any]:
    """Append *patches* to *table*, those whose weight is *known*. Returns the keys taken."""
    taken = []
    for given, patch in patches.items():
        key, part, function = split_patch_key(given)
        if key in known:
            add_patch(table, key, AddedPatch((strength_patch, patch, strength_model, part, function)))
            taken.append(given)
    return taken


class WeightPatches:
    """Patches by ComfyUI's weight names, functions on weights at each use, and replacements of objects by dotted path.

    ``given_uuid`` is what somebody said the weights to load are to be known by since they changed last; usually nobody did, and they are
    known by their contents (``last_uuid``: by which, when that was asked last). Owns all of it; holds neither patcher nor module.
    """

    def __init__(self) -> None:
        self._patches: Patches | SharedPatches = PatchTable()
        self.given_uuid: uuid.UUID | None = None
        self.last_uuid: uuid.UUID | None = None
        self.weight_wrapper_patches: dict[str, list[Callable[..., Any]]] = {}
        self.force_cast_weights = False
        self.object_patches: dict[str, Any] = {}

    def clone(self) -> WeightPatches:
        """Equal changes that change independently; lists of patches are shared until one side asks for them."""
        twin = WeightPatches.__new__(WeightPatches)
        table = self._patches
        twin._patches = table.share() if isinstance(table, PatchTable) else table if isinstance(table, SharedPatches) else fork_table(table)
        twin.given_uuid = self.given_uuid
        twin.last_uuid = self.last_uuid
        twin.weight_wrapper_patches = copy_containers(self.weight_wrapper_patches)
        twin.force_cast_weights = self.force_cast_weights
        twin.object_patches = dict(self.object_patches)
        return twin

    @property
    def patches(self) -> Patches:
        """The patches by weight name, for the caller to change; the first call after cloning costs a pointer per name."""
        if isinstance(self._patches, SharedPatches):
            self._patches = self._patches.read().fork()
        return self._patches

    @patches.setter
    def patches(self, table: Patches) -> None:
        self._patches = table

    def read(self) -> Patches:
        """The patches, for reading only."""
        return self._patches.read() if isinstance(self._patches, SharedPatches) else self._patches

    def note_change(self) -> None:
        """The weights to load have become others."""
        self.given_uuid = None

    def add(self, known: Collection[str], patches: Mapping[Any, Any], strength_patch: float, strength_model: float) -> list[Any]:
        """Append *patches*, those whose weight is *known*. Returns the keys taken."""
        taken = add_to_table(self.patches, known, patches, strength_patch, strength_model)
        self.note_change()
        return taken

    def add_wrapper(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        """Pass the weight *name* through *function* at each use."""
        self.weight_wrapper_patches[name] = [*self.weight_wrapper_patches.get(name, ()), function]
        self.note_change()

    def add_object_patch(self, name: str, obj: Any) -> None:
        """Replace the attribute at the dotted path *name* of the module while this patcher is loaded.

        A layer or a weight may also go by ComfyUI's path, like ``diffusion_model.time_embed.0``.
        """
        self.object_patches[name] = obj
