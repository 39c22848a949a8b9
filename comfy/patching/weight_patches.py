"""Adding patches to weights by name, and reading patched and unpatched weights."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import comfy.lora
from comfy.patching.attachments import Attachments
from comfy.patching.low_vram import patched_value
from comfy.patching.model_weights import ModelWeights
from comfy.patching.patch_table import PatchTable, split_patch_key
from comfy.patching.placement import Backup, Placement


def get_key_weight(model: torch.nn.Module, key: str) -> tuple[Tensor, None, None]:
    """The weight that *key* names as it is now, and two Nones: no layer here sets or converts weights its own way."""
    return ModelWeights(model).get(key), None, None


def unchanged(weight: Tensor, **_: Any) -> Tensor:
    """The converter that ``get_key_patches`` hands out beside each weight."""
    return weight


def add_to_table(table: PatchTable, known: set[str], patches: Mapping[Any, Any], strength_patch: float, strength_model: float) -> list[Any]:
    """Append *patches* to *table*, those whose weight is *known*. Returns the keys taken."""
    taken = []
    for given, patch in patches.items():
        key, part, function = split_patch_key(given)
        if key in known:
            table.add(key, (strength_patch, patch, strength_model, part, function))
            taken.append(given)
    return taken


class WeightPatches(Attachments):
    """The part of ``ModelPatcher`` that changes weights. Keys are ComfyUI's weight names."""

    patches: PatchTable
    backup: dict[str, Backup]
    hook_backup: dict[str, Any]
    weight_wrapper_patches: dict[str, list[Callable[..., Any]]]
    patches_uuid: uuid.UUID
    load_device: torch.device
    offload_device: torch.device

    @property
    def weights(self) -> ModelWeights:
        """The module's weights by name."""
        return ModelWeights(self.model)

    @property
    def _placement(self) -> Placement:
        return Placement(self.model, self.backup)

    def _patches_changed(self) -> None:
        self.patches_uuid = uuid.uuid4()

    def add_patches(self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]:
        """Add *patches* by weight name, or by (name, (dim, start, length)[, function]) for a slice.

        The weight becomes ``strength_model * weight + function(strength_patch * patch)``. Returns the keys whose weight exists.
        """
        with self.use_ejected():
            taken = add_to_table(self.patches, set(self.weights.keys()), patches, strength_patch, strength_model)
            self._patches_changed()
        return taken

    def add_weight_wrapper(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        """Pass the weight *name* through *function* at each use."""
        self.weight_wrapper_patches[name] = [*self.weight_wrapper_patches.get(name, ()), function]
        self._patches_changed()

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, list[Any]]:
        """For each weight: [(pristine weight, converter), patch, patch, …], as merging nodes pass it to ``add_patches``."""
        weights = self.weights
        return {
            key: [(self._pristine(key, weights), unchanged), *(self.patches.read(key) if key in self.patches else ())]
            for key in weights
            if filter_prefix is None or key.startswith(filter_prefix)
        }

    def model_state_dict(self, filter_prefix: str | None = None) -> dict[str, Tensor]:
        """The weights and buffers as they are now, by name; views except where a name is made of several parameters."""
        with self.use_ejected():
            weights = self.weights
            return {key: weights.get(key).detach() for key in weights if filter_prefix is None or key.startswith(filter_prefix)}

    def calculate_weight(self, patches: list[Any], weight: Tensor, key: str, intermediate_dtype: torch.dtype = torch.float32) -> Tensor:
        """See :func:`comfy.lora.calculate_weight`."""
        return comfy.lora.calculate_weight(patches, weight, key, intermediate_dtype=intermediate_dtype)

    def patch_weight_to_device(
        self,
        key: str,
        device_to: torch.device | None = None,
        inplace_update: bool = False,
        return_weight: bool = False,
        force_cast: bool = False,
    ) -> Tensor | None:
        """Put the patched value of *key*, computed on *device_to*, in its place, or return it without doing so."""
        weights = self.weights
        if key not in self.patches and not force_cast:
            return weights.get(key)
        value = self._patched(key, device_to, weights)
        if return_weight:
            return value
        for path, part in weights.split(key, value).items():
            self._placement.put(path, part, patched=True)
        return None

    def model_state_dict_for_saving(self, model: Any = None, prefix: str = "") -> dict[str, Tensor]:
        """The patched weights in host memory by name, *prefix* (of those that have it) taken off."""
        with self.use_ejected():
            weights = self.weights
            names = [key for key in weights if key.startswith(prefix)]
            return {
                key[len(prefix) :]: (self._patched(key, self.load_device, weights) if key in self.patches else self._pristine(key, weights))
                .detach()
                .to("cpu")
                for key in names
            }

    def state_dict_for_saving(self, clip_state_dict: Any = None, vae_state_dict: Any = None, clip_vision_state_dict: Any = None) -> Any:
        """A whole checkpoint with this model's patched weights; see ``BaseModel.state_dict_for_saving``."""
        own = self.model_state_dict_for_saving(prefix="diffusion_model.")
        return self.model.state_dict_for_saving(
            own, clip_state_dict=clip_state_dict, vae_state_dict=vae_state_dict, clip_vision_state_dict=clip_vision_state_dict
        )

    def _pristine(self, key: str, weights: ModelWeights) -> Tensor:
        held = self.hook_backup

        def read(path: str) -> Tensor:
            backup = self.backup.get(path)
            if backup is not None and backup.weight is not None:
                return backup.weight
            return held[path] if path in held else weights.parameter(path)

        return weights.get(key, read)

    def _patched(self, key: str, device: torch.device | None, weights: ModelWeights) -> Tensor:
        """A new tensor with the value of *key*: its patches, if any, on the pristine weight."""
        pristine = self._pristine(key, weights)
        patches = self.patches.read(key) if key in self.patches else []
        return patched_value(patches, pristine, key, device, pristine.dtype)
