"""Bringing a patcher's weights, patched, to a device and back, whole or in part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import comfy.model_management
from comfy.patcher_extension import CallbacksMP
from comfy.patching.layers import Layer, LayerPlan, layers_of, move_weight_functions, plan_layers, stream, wipe_lowvram_weight
from comfy.patching.low_vram import LowVramPatch
from comfy.patching.model_weights import ModelWeights
from comfy.patching.placement import BufferPlacement, Placement, as_parameter
from comfy.patching.weight_patches import WeightPatches
from comfy.residency.devices import Device
from comfy.units import MIB

log = logging.getLogger(__name__)


def note_device(model: Any, device: torch.device) -> None:
    """Record where *model* is: as ``loaded_device``, and as ``device`` unless its class computes that itself."""
    model.loaded_device = device
    if not isinstance(getattr(type(model), "device", None), property):
        model.device = device


def unsaved_buffer_bytes(module: torch.nn.Module) -> int:
    """Bytes of the buffers that are not part of the module's saved state and so of its size, but go to the device with it."""
    return sum(
        buffer.nbytes
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name in part._non_persistent_buffers_set
    )


class PatchedParts:
    """Patched values by parameter during one load: a weight made of several parameters is computed once for all of them."""

    def __init__(self, compute: Callable[[str], Tensor], weights: ModelWeights) -> None:
        self._compute = compute
        self._weights = weights
        self._waiting: dict[str, Tensor] = {}

    def take(self, key: str, path: str) -> Tensor:
        """The patched value of the parameter at *path*, which is (part of) the weight *key*."""
        if path not in self._waiting:
            self._waiting.update(self._weights.split(key, self._compute(key)))
        return self._waiting.pop(path)


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


class WeightLoading(WeightPatches):
    """The part of ``ModelPatcher`` that loads. The module itself carries what is loaded, since all clones share it."""

    backup_buffers: dict[str, Any]
    force_cast_weights: bool
    forced_hooks: Any
    pinned: set[str]

    def loaded_size(self) -> int:
        """Bytes of the weights that are on the device."""
        return self.model.model_loaded_weight_memory

    def lowvram_patch_counter(self) -> int:
        """How many weights are patched at each use."""
        return self.model.lowvram_patch_counter

    def current_loaded_device(self) -> torch.device:
        """Where the module is."""
        return self.model.loaded_device

    def pristine_weights(self) -> Iterator[Tensor]:
        """The unpatched parameters, wherever they are; tied ones once for each name."""
        for path, _ in self.model.named_parameters(remove_duplicate=False):
            yield self._placement.pristine(path)

    def load(
        self,
        device_to: torch.device | None = None,
        lowvram_model_memory: float = 0,
        force_patch_weights: bool = False,
        full_load: bool = False,
    ) -> None:
        """Put the patched weights on *device_to* (None: where they are), at most *lowvram_model_memory* bytes unless *full_load*.

        Layers that do not fit keep their weights on the host and fetch them at each call; the results are the same bit for bit.
        What is there already stays. Raises what a copy raises; :meth:`detach` undoes what was done until then.
        """
        with self.use_ejected():
            self.unpatch_hooks()
            device = self._device(device_to)
            layers = layers_of(self.model)
            unlimited = full_load or device.is_host
            budget_bytes = lowvram_model_memory - sum(buffer.nbytes for buffer in self.model.buffers())
            plan = plan_layers(layers, None if unlimited else budget_bytes, device.stream_buffer_bytes)
            weights = self.weights
            parts = PatchedParts(lambda key: self._patched(key, device_to, weights), weights)
            self.model.lowvram_patch_counter = 0
            for layer in plan.streamed:
                self._stream_layer(layer, device, parts, force_patch_weights)
            tied = None if device.is_host else TiedCopies(layers, self._placement, device)
            self._make_resident(plan.resident, tied, device, parts)
            self._move_buffers(device_to)
            self._note_loaded(plan, device_to)
            self._call_back(CallbacksMP.ON_LOAD, device_to, lowvram_model_memory, force_patch_weights, full_load)
            self.apply_hooks(self.forced_hooks, force_apply=True)

    def patch_model(
        self,
        device_to: torch.device | None = None,
        lowvram_model_memory: float = 0,
        load_weights: bool = True,
        force_patch_weights: bool = False,
    ) -> Any:
        """Apply object patches, load (0: without limit) and inject. Returns the module."""
        with self.use_ejected():
            self._apply_object_patches()
            if load_weights:
                self.load(device_to, lowvram_model_memory, force_patch_weights, full_load=lowvram_model_memory == 0)
        self.inject_model()
        return self.model

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None:
        """Undo :meth:`patch_model`: the pristine parameters return to *device_to*, the very objects that were there."""
        self.eject_model()
        if unpatch_weights or self.object_patches or self.object_patches_backup:  # no object leaves with buffers of a device
            BufferPlacement(self.model, self.backup_buffers).put_back()
        if unpatch_weights:
            self.unpatch_hooks()
            self.unpin_all_weights()
            home = self.offload_device if device_to is None else device_to
            placement = self._placement
            for path in list(self.backup):
                placement.put_back(path, home)
            for module in self.model.modules():
                move_weight_functions(module, device_to)
                wipe_lowvram_weight(module)
                module.__dict__.pop("comfy_patched_weights", None)
            if device_to is not None:
                note_device(self.model, device_to)
            self.model.model_lowvram = False
            self.model.lowvram_patch_counter = 0
            self.model.model_loaded_weight_memory = 0
            self.model.model_offload_buffer_memory = 0
            self.model.current_weight_patches_uuid = None
        self._restore_object_patches()

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False) -> float:
        """Load up to *extra_memory* bytes more than are loaded (negative: give as much back). Returns the bytes added.

        When the patches are not those that are loaded, only the layers they or the earlier ones touch are brought up to date.
        After a failure nothing is loaded.
        """
        model = self.model
        with self.use_ejected(skip_and_inject_on_exit_only=True):
            before_bytes = model.model_loaded_weight_memory
            if before_bytes and model.loaded_device != device_to:
                self.unpatch_model(self.offload_device)
                before_bytes = 0
            budget_bytes = before_bytes + extra_memory
            loaded_uuid = model.current_weight_patches_uuid
            is_stale = loaded_uuid is not None and (loaded_uuid != self.patches_uuid or force_patch_weights)
            self.unpatch_model(self.offload_device, unpatch_weights=False)
            try:
                self.patch_model(load_weights=False)
                if is_stale:
                    self._take_back_touched_layers()
                if model.model_loaded_weight_memory > budget_bytes:
                    self.partially_unload(self.offload_device, model.model_loaded_weight_memory - budget_bytes, force_patch_weights)
                    if not is_stale:
                        return model.model_loaded_weight_memory - before_bytes
                if not is_stale and model.model_loaded_weight_memory > 0 and not model.model_lowvram:
                    self._move_buffers(device_to)
                    self.apply_hooks(self.forced_hooks, force_apply=True)
                    return 0
                fits = budget_bytes >= self.model_size() + unsaved_buffer_bytes(model)
                self.load(device_to, budget_bytes, force_patch_weights, full_load=fits)
            except BaseException:
                self.detach()
                raise
            return model.model_loaded_weight_memory - before_bytes

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0, force_patch_weights: bool = False) -> int:
        """Take layers off the device, the smallest first, until *memory_to_free* bytes are free. Returns the bytes freed.

        They stream from then on. Layers that cannot are left; 0 where weights are computed with in place.
        """
        model = self.model
        device = self._device(model.loaded_device)
        if device.is_host:
            return 0
        with self.use_ejected():
            weights = self.weights
            parts = PatchedParts(lambda key: self._patched(key, self.load_device, weights), weights)
            freed_bytes, buffer_before = 0, model.model_offload_buffer_memory
            candidates = [layer for layer in layers_of(model) if layer.is_resident and layer.can_stream]
            for layer in sorted(candidates, key=lambda layer: layer.size_bytes):
                if freed_bytes >= memory_to_free + model.model_offload_buffer_memory - buffer_before:
                    break
                if freed_bytes == 0:
                    self.unpatch_hooks()
                self._take_home(layer, device_to)
                self._stream_layer(layer, device, parts, force_patch_weights)
                freed_bytes += layer.size_bytes
                model.model_offload_buffer_memory = max(model.model_offload_buffer_memory, device.stream_buffer_bytes(layer.size_bytes))
                model.model_lowvram = True
            model.model_loaded_weight_memory -= freed_bytes
            log.info(
                "%s: %.2f MB moved off %s, %.2f MB stay",
                type(model).__name__,
                freed_bytes / MIB,
                model.loaded_device,
                model.model_loaded_weight_memory / MIB,
            )
        return freed_bytes

    def detach(self, unpatch_all: bool = True) -> Any:
        """Leave the module: eject, and with *unpatch_all* put every pristine weight back. Returns the module."""
        self.eject_model()
        self.model_patches_to(self.offload_device)
        if unpatch_all:
            self.unpatch_model(self.offload_device, unpatch_weights=True)
        self._call_back(CallbacksMP.ON_DETACH, unpatch_all)
        return self.model

    def pin_weight_to_device(self, key: str) -> None:
        """Page-lock the host memory of the parameter at *key*."""
        if comfy.model_management.pin_memory(self.weights.parameter(key)):
            self.pinned.add(key)

    def unpin_weight(self, key: str) -> None:
        """Undo :meth:`pin_weight_to_device`."""
        if key in self.pinned:
            comfy.model_management.unpin_memory(self._placement.pristine(key))
            self.pinned.discard(key)

    def unpin_all_weights(self) -> None:
        """Undo every :meth:`pin_weight_to_device`."""
        for key in list(self.pinned):
            self.unpin_weight(key)

    def _device(self, torch_device: torch.device | None) -> Device:
        devices = comfy.model_management.manager().devices
        return devices.host if torch_device is None else devices.find(torch_device)

    def _move_buffers(self, torch_device: torch.device | None) -> None:
        device = self._device(torch_device)
        if not device.is_host and (self.object_patches or not self.backup_buffers):
            BufferPlacement(self.model, self.backup_buffers).move(device.receive)

    def _make_resident(self, layers: tuple[Layer, ...], tied: TiedCopies | None, device: Device, parts: PatchedParts) -> None:
        weights, placement = self.weights, self._placement
        keep_pristine = device.keeps_host_copy()
        for layer in layers:
            self._set_resident_functions(layer, weights)
            if layer.is_resident:
                continue
            for path in layer.parameters.values():
                key = weights.key_of(path)
                if placement.is_patched(path):
                    placement.put_back(path, self.offload_device)
                if key in self.patches:
                    placement.put(path, device.receive(parts.take(key, path)), patched=True)
                elif tied is not None:
                    pristine = placement.pristine(path)
                    copy = tied.receive(pristine)
                    if copy is not pristine:
                        placement.put(path, copy, patched=False, keep_pristine=keep_pristine)
            layer.module.comfy_patched_weights = True

    def _set_resident_functions(self, layer: Layer, weights: ModelWeights) -> None:
        if not layer.can_stream:
            return
        wipe_lowvram_weight(layer.module)
        functions = [self._wrappers(layer, attribute, weights) for attribute in ("weight", "bias")]
        if self.force_cast_weights:
            stream(layer.module, *functions)
        else:
            layer.module.weight_function, layer.module.bias_function = functions

    def _stream_layer(self, layer: Layer, device: Device, parts: PatchedParts, force_patch_weights: bool) -> None:
        """Let *layer* fetch its weights. Patches that cannot be applied at each call are applied to the host's copy."""
        weights, placement = self.weights, self._placement
        wipe_lowvram_weight(layer.module)
        functions: dict[str, list[Any]] = {"weight": [], "bias": []}
        for attribute, path in layer.parameters.items():
            if placement.is_patched(path):
                placement.put_back(path, self.offload_device)
            key, pristine = weights.key_of(path), placement.pristine(path)
            if device.streams_through_functions and attribute in functions:
                functions[attribute].append(device.stream)
            if key in self.patches and (force_patch_weights or attribute not in functions or not weights.is_whole(key)):
                placement.put(path, parts.take(key, path).to(self.offload_device), patched=True)
            elif key in self.patches:
                shape = weights.shape(key)
                functions[attribute].append(
                    LowVramPatch(key, {key: self.patches.read(key)}, None if shape == tuple(pristine.shape) else shape, pristine.dtype)
                )
                self.model.lowvram_patch_counter += 1
            if not force_patch_weights and device.kind in ("cuda", "rocm"):
                self.pin_weight_to_device(path)
        for attribute in functions:
            functions[attribute] += self._wrappers(layer, attribute, weights)
        stream(layer.module, functions["weight"], functions["bias"])
        layer.module.comfy_patched_weights = False

    def _wrappers(self, layer: Layer, attribute: str, weights: ModelWeights) -> list[Any]:
        path = layer.parameters.get(attribute)
        return [] if path is None else list(self.weight_wrapper_patches.get(weights.key_of(path), ()))

    def _take_home(self, layer: Layer, home: torch.device) -> None:
        for path in layer.parameters.values():
            self._placement.put_back(path, home)
        layer.module.comfy_patched_weights = False

    def _take_back_touched_layers(self) -> None:
        """Put the layers back that the loaded patches changed or this patcher's will, so that the next load redoes only them."""
        weights, placement = self.weights, self._placement
        self.unpatch_hooks()
        for layer in layers_of(self.model):
            touched = any(placement.is_patched(path) or weights.key_of(path) in self.patches for path in layer.parameters.values())
            if touched and layer.is_resident:
                self._take_home(layer, self.offload_device)
                self.model.model_loaded_weight_memory = max(0, self.model.model_loaded_weight_memory - layer.size_bytes)

    def _note_loaded(self, plan: LayerPlan, device_to: torch.device | None) -> None:
        model, streamed_bytes = self.model, sum(layer.size_bytes for layer in plan.streamed)
        loaded_bytes = max(0, self.model_size() - streamed_bytes)
        model.model_lowvram = bool(plan.streamed)
        model.model_loaded_weight_memory = loaded_bytes
        model.model_offload_buffer_memory = plan.buffer_bytes
        model.current_weight_patches_uuid = self.patches_uuid
        if device_to is not None:
            note_device(model, device_to)
        log.info(
            "%s loaded %s: %.2f MB on %s, %.2f MB on the host, %d weights patched at each use",
            type(model).__name__,
            "partially" if plan.streamed else "completely",
            loaded_bytes / MIB,
            model.loaded_device,
            streamed_bytes / MIB,
            model.lowvram_patch_counter,
        )
