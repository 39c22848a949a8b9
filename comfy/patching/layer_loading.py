"""Bringing single layers to a device, letting them stream, and taking them home."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import comfy.model_management
from comfy.patching.content_identity import ContentIdentity
from comfy.patching.forwarding import forwards_to
from comfy.patching.layers import Layer, stream, wipe_lowvram_weight
from comfy.patching.low_vram import LowVramPatch
from comfy.patching.model_weights import ModelWeights
from comfy.patching.on_host.filling import AT_ONCE, Filling, OnHost
from comfy.patching.on_host.freed_memory import FreedMemory
from comfy.patching.patch_table import read_patches
from comfy.patching.placement import Placement, as_parameter
from comfy.patching.protocols import Patcher
from comfy.patching.weight_values import WeightValues
from comfy.residency.devices import Device
from comfy.residency.fetching import FETCHER, WeightFetcher, can_fetch
from comfy.wrapper_tensors import is_wrapper

WeightFunctions = list[Callable[[Tensor], Tensor]]


class PatchedValues:
    """Patched values by parameter during one load: a weight made of several parameters is computed once for all of them.

    Values are computed on *compute_on* (None: where the weight is), by the patcher's own ``patch_weight_to_device`` where a node
    pack replaced it (``is_replaced``).
    """

    def __init__(self, patcher: Patcher, weights: ModelWeights, placement: Placement, compute_on: torch.device | None) -> None:
        self._patcher = patcher
        self._weights = weights
        self._placement = placement
        self._compute_on = compute_on
        self._waiting: dict[str, Tensor | None] = {}
        self.is_replaced = not forwards_to(patcher.patch_weight_to_device, WeightValues.patch_to_device)

    def take(self, key: str, path: str, on_host: OnHost = AT_ONCE) -> Tensor | None:
        """The patched value of the parameter at *path*, which is (part of) the weight *key*; None if it stays as it is.

        *on_host* tells how it is made there.
        """
        if key not in self._patcher.patches and not self.is_replaced:
            return None
        if path not in self._waiting:
            self._waiting.update(self._from_replacement(key) if self.is_replaced else self._from_patches(key, on_host))
        return self._waiting.pop(path, None)

    def _from_patches(self, key: str, on_host: OnHost) -> dict[str, Tensor]:
        return self._weights.split(key, WeightValues(self._patcher).patched(key, self._compute_on, on_host))

    def _from_replacement(self, key: str) -> dict[str, Tensor | None]:
        placed = self._patcher.backup  # parameters of layers that are loaded stay there
        pristine = {path: self._placement.pristine(path) for path in self._weights.paths(key) if path not in placed}
        self._patcher.patch_weight_to_device(key, device_to=self._compute_on)
        return {path: self._placement.take_out(path, tensor) for path, tensor in pristine.items()}


class TiedCopies:
    """Copies for a device: a parameter that several modules share is copied once, also across loads."""

    def __init__(self, layers: Sequence[Layer], placement: Placement, device: Device) -> None:
        self._device = device
        self._copies: dict[int, tuple[Tensor, Tensor | None]] = {}  # id of a shared parameter -> (it, its copy)
        places: dict[int, list[str]] = {}
        for path in [path for layer in layers for path in layer.parameters.values()]:
            places.setdefault(id(placement.pristine(path)), []).append(path)
        for paths in [paths for paths in places.values() if len(paths) > 1]:
            pristine = placement.pristine(paths[0])
            copies = [placement.current(path) for path in paths if not placement.is_patched(path)]
            self._copies[id(pristine)] = (pristine, next((copy for copy in copies if copy is not pristine), None))

    def receive(self, pristine: Tensor) -> Tensor:
        """*pristine* on the device, as a parameter if it is shared."""
        _, copy = self._copies.get(id(pristine), (None, None))
        if copy is None:
            copy = self._device.receive(pristine)
            if id(pristine) in self._copies:
                copy = as_parameter(copy)
                self._copies[id(pristine)] = (pristine, copy)
        return copy


def _fetcher_of(module: torch.nn.Module, device: Device) -> WeightFetcher | None:
    """What fetches the weights of *module*'s streamed layers ahead on *device*: one for all loads, until everything is unloaded."""
    kept: WeightFetcher | None = vars(module).get(FETCHER)
    if kept is None or kept.torch_device != device.torch_device:
        kept = vars(module)[FETCHER] = device.new_fetcher()
    elif kept is not None:
        kept.forget()
    return kept


class LayerLoading:
    """Moves layers of *patcher*'s module between its home and *device*, with the patcher's patches. Made for one operation.

    *force_patch_weights*: the copies that streamed layers keep on the host are patched, too, instead of patching at each call.
    """

    def __init__(self, patcher: Patcher, device: Device, compute_on: torch.device | None, force_patch_weights: bool = False) -> None:
        self._patcher = patcher
        self._device = device
        self._force_patch_weights = force_patch_weights
        self._weights = ModelWeights(patcher.model)
        self._placement = Placement(patcher.model, patcher.backup)
        self._values = PatchedValues(patcher, self._weights, self._placement, compute_on)
        # What a node pack computes in its own way cannot be repeated at each call.
        own_way = self._values.is_replaced or not forwards_to(patcher.calculate_weight, WeightValues.calculate)
        self._patches_host_copies = force_patch_weights or own_way
        self._identities = None if own_way else ContentIdentity(patcher)
        self._fetcher = _fetcher_of(patcher.model, device)
        self._channels_last = comfy.model_management.force_channels_last() and hasattr(patcher.model, "diffusion_model")

    def make_resident(self, layers: Sequence[Layer], all_layers: Sequence[Layer]) -> None:
        """Put the patched weights of *layers* on the device; those that are there stay. *all_layers* are the module's."""
        placement = self._placement
        tied = None if self._device.is_host else TiedCopies(all_layers, placement, self._device)
        keep_pristine = self._device.keeps_host_copy()
        if not self._values.is_replaced:
            placement.know(layers)
        brought: list[Layer] = []
        try:
            with Filling() as filling:
                for layer in layers:
                    self._set_resident_functions(layer)
                    if not layer.is_resident:
                        brought.append(layer)
                        for path in layer.parameters.values():
                            self._bring(path, tied, keep_pristine, filling)
                        layer.module.comfy_patched_weights = True
        except BaseException:
            for layer in brought:  # nobody must meet values that were not filled
                self.take_home(layer, self._patcher.offload_device)
            raise

    def _bring(self, path: str, tied: TiedCopies | None, keep_pristine: bool, filling: Filling) -> None:
        """Put the patched or a pristine value of one parameter on the device; on the host *filling* fills it."""
        placement, freed = self._placement, None
        if placement.is_patched(path):
            freed = FreedMemory(placement.current(path)) if self._device.is_host else None
            placement.put_back(path, self._patcher.offload_device)
        key = self._weights.key_of(path)
        value = self._values.take(key, path, OnHost(freed, filling) if self._device.is_host else AT_ONCE)
        if value is not None:
            placement.put(path, self._in_order(self._device.receive(value)), patched=True, identity=self._wanted(key))
        elif tied is not None:
            pristine = placement.pristine(path)
            copy = self._in_order(tied.receive(pristine))
            if copy is not pristine:
                placement.put(path, copy, patched=False, keep_pristine=keep_pristine)

    def _in_order(self, weight: Tensor) -> Tensor:
        """*weight*; a diffusion model's convolutions are put in channels-last order on the card where a flag asks for it."""
        if self._channels_last and weight.ndim == 4 and weight.device.type == "cuda" and not is_wrapper(weight):
            return weight.contiguous(memory_format=torch.channels_last)
        return weight

    def stream(self, layer: Layer) -> None:
        """Let *layer* fetch its weights. Patches that cannot be applied at each call are applied to the host's copy."""
        weights, placement = self._weights, self._placement
        wipe_lowvram_weight(layer.module)
        functions: dict[str, WeightFunctions] = {"weight": [], "bias": []}
        for attribute, path in layer.parameters.items():
            if placement.is_patched(path):
                placement.put_back(path, self._patcher.offload_device)
            key = weights.key_of(path)
            if self._device.streams_through_functions and attribute in functions:
                functions[attribute].append(self._device.stream)
            if key in self._patcher.patches:
                if self._patches_host_copies or attribute not in functions or not weights.is_whole(key):
                    self._patch_host_copy(key, path)
                else:
                    functions[attribute].append(self._patch_at_each_call(key, placement.pristine(path)))
                    self._patcher.model.lowvram_patch_counter += 1
        for attribute in functions:
            functions[attribute] += self._wrappers(layer, attribute)
        stream(layer.module, functions["weight"], functions["bias"])
        layer.module.comfy_patched_weights = False
        if self._fetcher is not None and hasattr(layer.module, "fetcher") and can_fetch(layer.module):
            layer.module.fetcher = self._fetcher

    def call_bytes(self, layer: Layer) -> int:
        """What a call of *layer* takes on the device beside activations when it streams: buffers, and room to patch the weights in."""
        size_bytes = self._device.stream_buffer_bytes(layer.size_bytes)
        if self._patches_host_copies or not self._patcher.patches:
            return size_bytes
        patched = [self._placement.pristine(path) for path in self._patched_paths(layer)]
        return size_bytes + max((self._device.patching_bytes(weight.numel(), weight.element_size()) for weight in patched), default=0)

    def _patched_paths(self, layer: Layer) -> list[str]:
        return [path for path in layer.parameters.values() if self._weights.key_of(path) in self._patcher.patches]

    def take_home(self, layer: Layer, home: torch.device) -> None:
        """Put the pristine weights of *layer* back, at *home*."""
        for path in layer.parameters.values():
            self._placement.put_back(path, home)
        layer.module.comfy_patched_weights = False

    def is_outdated(self, layer: Layer) -> bool:
        """Whether a weight of *layer* was made by other patches than this patcher's, or perhaps was."""
        for path in layer.parameters.values():
            key, is_patched = self._weights.key_of(path), self._placement.is_patched(path)
            if (is_patched or key in self._patcher.patches) and not (is_patched and self._is_made_by_own_patches(key, path)):
                return True
        return False

    def _is_made_by_own_patches(self, key: str, path: str) -> bool:
        wanted = self._wanted(key)
        return wanted is not None and self._placement.identity(path) == wanted

    def _wanted(self, key: str) -> bytes | None:
        """The identity of this patcher's patches of *key*; None where a node pack computes values in its own way."""
        return None if self._identities is None else self._identities.of_weight(key)

    def _patch_host_copy(self, key: str, path: str) -> None:
        value = self._values.take(key, path)
        if value is not None:
            self._placement.put(path, value.to(self._patcher.offload_device), patched=True)

    def _patch_at_each_call(self, key: str, pristine: Tensor) -> LowVramPatch:
        shape = self._weights.shape(key)
        patches = {key: read_patches(self._patcher.patches, key)}
        return LowVramPatch(key, patches, None if shape == tuple(pristine.shape) else shape, pristine.dtype)

    def _set_resident_functions(self, layer: Layer) -> None:
        if not layer.can_stream:
            return
        wipe_lowvram_weight(layer.module)
        weight_functions, bias_functions = self._wrappers(layer, "weight"), self._wrappers(layer, "bias")
        if self._patcher.force_cast_weights:
            stream(layer.module, weight_functions, bias_functions)
        else:
            layer.module.weight_function, layer.module.bias_function = weight_functions, bias_functions

    def _wrappers(self, layer: Layer, attribute: str) -> WeightFunctions:
        path = layer.parameters.get(attribute)
        return [] if path is None else list(self._patcher.weight_wrapper_patches.get(self._weights.key_of(path), ()))
