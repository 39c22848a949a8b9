"""Replacing objects inside a module, by dotted path, while a patcher is loaded."""

from __future__ import annotations

from typing import Any

import torch

from comfy.patching.attribute_paths import get_attr, set_attr


class ObjectPatches:
    """The replacements *patches* of one patcher for objects of *module*; *originals* are those that are replaced now.

    Both map dotted paths to objects; *originals* is shared by all clones. Made for one operation.
    """

    def __init__(self, module: torch.nn.Module, patches: dict[str, Any], originals: dict[str, Any]) -> None:
        self._module = module
        self._patches = patches
        self._originals = originals

    def get(self, name: str) -> Any:
        """The object at the dotted path *name* as the patcher sees it, loaded or not. Raises ``AttributeError``."""
        if name in self._patches:
            return self._patches[name]
        if name in self._originals:
            return self._originals[name]
        return get_attr(self._module, own_path(self._module, name))

    def apply(self) -> None:
        """Put the replacements into the module."""
        for name, replacement in self._patches.items():
            before = set_attr(self._module, own_path(self._module, name), replacement)
            self._originals.setdefault(name, before)

    def restore(self) -> None:
        """Put every original back, the latest replaced first."""
        for name, original in reversed(list(self._originals.items())):
            set_attr(self._module, own_path(self._module, name), original)
        self._originals.clear()


def own_path(module: torch.nn.Module, name: str) -> str:
    """The path in *module* of the layer or weight that ComfyUI calls *name*; *name* itself for everything else.

    Only layers with a weight of their own, kept in one piece and in the shape ComfyUI knows, have a path of ComfyUI's.
    """
    names = getattr(module, "weight_names", None)
    if names is None:
        return name
    for suffix in ("", ".weight"):
        parts = names.get(name + suffix, ())
        if len(parts) == 1 and parts[0].shape is None:
            return parts[0].parameter.removesuffix(suffix)
    return name
