"""The values of a module's weights as a patcher sees them: as they are now, pristine, and patched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import comfy.lora
from comfy.patching.attribute_paths import get_attr
from comfy.patching.forwarding import forwards_to
from comfy.patching.low_vram import patched_value
from comfy.patching.model_weights import ModelWeights
from comfy.patching.on_host.filling import AT_ONCE, OnHost
from comfy.patching.patch_table import read_patches
from comfy.patching.placement import Placement
from comfy.patching.protocols import Patcher
from comfy.quantisation.weights import SETTINGS_ATTRIBUTE, dequantised, is_quantised


def get_key_weight(model: torch.nn.Module, key: str) -> tuple[Tensor, None, None]:
    """The weight that *key* names as it is now, and two Nones: no layer here sets or converts weights its own way."""
    return ModelWeights(model).get(key), None, None


def unchanged(weight: Tensor, **_: Any) -> Tensor:
    """The converter that ``get_key_patches`` hands out beside each weight: the values of a quantised one, others as they are."""
    return dequantised(weight)


class WeightValues:
    """Reads and computes the weights of *patcher*'s module. Keys are ComfyUI's weight names. Made for one operation."""

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher
        self._weights = ModelWeights(patcher.model)

    def key_patches(self, filter_prefix: str | None = None) -> dict[str, list[Any]]:
        """For each weight: [(pristine weight, converter), patch, patch, …], as merging nodes pass it to ``add_patches``."""
        patches = self._patcher.patches
        return {key: [(self.pristine(key), unchanged), *read_patches(patches, key)] for key in self._keys(filter_prefix)}

    def state_dict(self, filter_prefix: str | None = None) -> dict[str, Tensor]:
        """The weights and buffers as they are now, by name; views except where a name is made of several parameters."""
        with self._patcher.use_ejected():
            return {key: self._described(key, self._weights.get(key).detach()) for key in self._keys(filter_prefix)}

    def state_dict_for_saving(self, model: object = None, prefix: str = "") -> dict[str, Tensor]:
        """The patched weights in host memory by name, *prefix* (of those that have it) taken off."""
        with self._patcher.use_ejected():
            return {key[len(prefix) :]: self._described(key, self._to_save(key).detach().to("cpu")) for key in self._keys(prefix)}

    def checkpoint_for_saving(
        self,
        clip_state_dict: Mapping[str, Tensor] | None = None,
        vae_state_dict: Mapping[str, Tensor] | None = None,
        clip_vision_state_dict: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """A whole checkpoint with this model's patched weights; see ``BaseModel.state_dict_for_saving``."""
        own = self._patcher.model_state_dict_for_saving(prefix="diffusion_model.")
        return self._patcher.model.state_dict_for_saving(
            own, clip_state_dict=clip_state_dict, vae_state_dict=vae_state_dict, clip_vision_state_dict=clip_vision_state_dict
        )

    def calculate(self, patches: Sequence[Any], weight: Tensor, key: str, intermediate_dtype: torch.dtype = torch.float32) -> Tensor:
        """*weight* changed in place by *patches*, in order; computed in *intermediate_dtype*."""
        return comfy.lora.calculate_weight(patches, weight, key, intermediate_dtype=intermediate_dtype)

    def patch_to_device(
        self,
        key: str,
        device_to: torch.device | None = None,
        inplace_update: bool = False,
        return_weight: bool = False,
        force_cast: bool = False,
    ) -> Tensor | None:
        """Put the patched value of *key*, computed on *device_to*, in its place, or return it without doing so.

        Returns the weight as it is, and does nothing, when *key* has no patches and *force_cast* is false.
        """
        if key not in self._patcher.patches and not force_cast:
            return self._weights.get(key)
        value = self.patched(key, device_to)
        if return_weight:
            return value
        placement = Placement(self._patcher.model, self._patcher.backup)
        for path, part in self._weights.split(key, value).items():
            placement.put(path, part, patched=True)
        return None

    def pristine(self, key: str) -> Tensor:
        """The weight without patches and hooks, wherever it is."""
        backups, replaced_by_hooks = self._patcher.backup, self._patcher.hook_backup

        def read(path: str) -> Tensor:
            backup = backups.get(path)
            if backup is not None and backup.weight is not None:
                return backup.weight
            return replaced_by_hooks[path] if path in replaced_by_hooks else self._weights.parameter(path)

        return self._weights.get(key, read)

    def patched(self, key: str, device: torch.device | None, on_host: OnHost = AT_ONCE) -> Tensor:
        """A new tensor on *device* with the value of *key*: its patches, if any, on the pristine weight. On the host as *on_host* says."""
        pristine = self.pristine(key)
        patches = read_patches(self._patcher.patches, key)
        calculate = self._patcher.calculate_weight
        is_own = forwards_to(calculate, WeightValues.calculate)
        return patched_value(patches, pristine, key, device, pristine.dtype, None if is_own else calculate, on_host=on_host)

    def _keys(self, prefix: str | None) -> list[str]:
        return [key for key in self._weights if prefix is None or key.startswith(prefix)]

    def _described(self, key: str, weight: Tensor) -> Tensor:
        """*weight*, which *key* names; a quantised one with what its layer knows of it, so that it can be saved."""
        if is_quantised(weight):
            layer = get_attr(self._patcher.model, self._weights.paths(key)[0].rpartition(".")[0])
            setattr(weight, SETTINGS_ATTRIBUTE, getattr(layer, "quantised", None))
        return weight

    def _to_save(self, key: str) -> Tensor:
        return self.patched(key, self._patcher.load_device) if key in self._patcher.patches else self.pristine(key)
