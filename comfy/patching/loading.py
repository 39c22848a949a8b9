"""Bringing a patcher's weights, patched, to a device and back, whole or in part."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

import comfy.model_management
from comfy.patcher_extension import CallbacksMP
from comfy.patching.attachments import call_back
from comfy.patching.content_identity import ContentIdentity
from comfy.patching.forwarding import forwards_to
from comfy.patching.layer_loading import LayerLoading
from comfy.patching.layers import LayerPlan, layers_of, move_weight_functions, plan_layers, wipe_lowvram_weight
from comfy.patching.model_weights import ModelWeights
from comfy.patching.object_patches import ObjectPatches, own_path
from comfy.patching.placement import BufferPlacement, Placement
from comfy.patching.protocols import PatchedModule, Patcher
from comfy.patching.tripwire import tripwire
from comfy.patching.weight_values import WeightValues
from comfy.residency.devices import Device
from comfy.residency.fetching import FETCHER, WeightFetcher
from comfy.units import megabytes

log = logging.getLogger(__name__)


REASONS_SHOWN = 3
LOADED_STATE = {
    "model_loaded_weight_memory": 0,
    "lowvram_patch_counter": 0,
    "model_lowvram": False,
    "current_weight_patches_uuid": None,
    "model_offload_buffer_memory": 0,
}


def prepare_module(model: PatchedModule, offload_device: torch.device) -> None:
    """Give *model* what a patcher keeps on it, as far as it is not there: that nothing is loaded, and that it is at *offload_device*."""
    if getattr(model, "loaded_device", None) is None:
        note_device(model, getattr(model, "device", None) or offload_device)
    for name, value in LOADED_STATE.items():
        if not hasattr(model, name):
            setattr(model, name, value)


def note_device(model: PatchedModule, device: torch.device) -> None:
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


class WeightLoading:
    """Loads the module of *patcher* and unloads it. Made for one operation.

    The module itself carries how much is loaded, since all clones share it. Steps that a subclass of ``ModelPatcher`` may override
    are called on *patcher*.
    """

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher
        self._model = patcher.model
        self._placement = Placement(patcher.model, patcher.backup)

    def pristine_weights(self) -> Iterator[Tensor]:
        """The unpatched parameters, wherever they are; tied ones once for each name."""
        for path, _ in self._model.named_parameters(remove_duplicate=False):
            yield self._placement.pristine(path)

    def weights_to_send(self) -> Iterator[Tensor]:
        """The unpatched weights on the host that the next load copies as they are: of layers that cannot stream first, then the largest."""
        weights, patches = ModelWeights(self._model), self._patcher.patches
        if self._patcher.object_patches or not forwards_to(self._patcher.patch_weight_to_device, WeightValues.patch_to_device):
            return
        for layer in sorted(layers_of(self._model), key=lambda layer: (layer.can_stream, -layer.size_bytes)):
            if not layer.is_resident:
                for path in layer.parameters.values():
                    if weights.key_of(path) not in patches:
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
        What is there already stays. Raises what a copy raises; ``detach`` undoes what was done until then.
        """
        patcher, model = self._patcher, self._model
        with patcher.use_ejected():
            patcher.unpatch_hooks()
            device = _device(device_to)
            budget_bytes = None
            if not full_load and not device.is_host:
                budget_bytes = lowvram_model_memory - sum(buffer.nbytes for buffer in model.buffers())
            layers = layers_of(model)
            loading = LayerLoading(patcher, device, device_to, force_patch_weights)
            plan = plan_layers(layers, budget_bytes, loading.call_bytes)
            model.lowvram_patch_counter = 0
            for layer in plan.streamed:
                loading.stream(layer)
            loading.make_resident(plan.resident, layers)
            self._lock_host_memory(device, bool(plan.streamed) and not force_patch_weights)
            self._move_buffers(device_to)
            self._note_loaded(plan, device_to)
            call_back(patcher, CallbacksMP.ON_LOAD, device_to, lowvram_model_memory, force_patch_weights, full_load)
            patcher.apply_hooks(patcher.forced_hooks, force_apply=True)

    def patch_model(
        self,
        device_to: torch.device | None = None,
        lowvram_model_memory: float = 0,
        load_weights: bool = True,
        force_patch_weights: bool = False,
    ) -> PatchedModule:
        """Apply object patches, load (0: without limit) and inject. Returns the module."""
        patcher = self._patcher
        with patcher.use_ejected():
            tripwire().before_patching(patcher)
            self._take_home_below(patcher.object_patches.keys() - patcher.object_patches_backup.keys())
            self._object_patches.apply()
            if load_weights:
                patcher.load(
                    device_to,
                    lowvram_model_memory=lowvram_model_memory,
                    force_patch_weights=force_patch_weights,
                    full_load=lowvram_model_memory == 0,
                )
        patcher.inject_model()
        return self._model

    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None:
        """Undo ``patch_model``: the pristine parameters return to *device_to*, the very objects that were there."""
        patcher = self._patcher
        patcher.eject_model()
        if unpatch_weights or patcher.object_patches or patcher.object_patches_backup:  # no object leaves with buffers of a device
            BufferPlacement(self._model, patcher.backup_buffers).put_back()
        if unpatch_weights:
            self._unpatch_weights(device_to)
        else:
            self._take_home_below(patcher.object_patches_backup.keys())
        self._object_patches.restore()
        if unpatch_weights:
            tripwire().after_unpatching(patcher)

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False) -> float:
        """Load up to *extra_memory* bytes more than are loaded (negative: give as much back). Returns the bytes added.

        When the patches are not those that are loaded, only the layers they or the earlier ones touch are brought up to date.
        After a failure nothing is loaded.
        """
        patcher, model = self._patcher, self._model
        with patcher.use_ejected(skip_and_inject_on_exit_only=True):
            before_bytes = model.model_loaded_weight_memory
            if before_bytes and model.loaded_device != device_to:
                patcher.unpatch_model(patcher.offload_device)
                before_bytes = 0
            budget_bytes = before_bytes + extra_memory
            loaded_uuid = model.current_weight_patches_uuid
            is_stale = loaded_uuid is not None and (loaded_uuid != patcher.patches_uuid or force_patch_weights)
            # What a node pack wrote into the weights in its own way, only its own unpatch_model takes out.
            is_replaced = not forwards_to(patcher.patch_weight_to_device, WeightValues.patch_to_device)
            is_swapped = bool(patcher.object_patches or patcher.object_patches_backup)  # layers may come in that no load has seen
            patcher.unpatch_model(patcher.offload_device, unpatch_weights=is_stale and is_replaced)
            is_stale = is_stale and not is_replaced
            try:
                patcher.patch_model(load_weights=False)
                if is_stale:
                    self._take_back_outdated_layers()
                if model.model_loaded_weight_memory > budget_bytes:
                    surplus_bytes = model.model_loaded_weight_memory - budget_bytes
                    patcher.partially_unload(patcher.offload_device, surplus_bytes, force_patch_weights=force_patch_weights)
                    if not is_stale and not is_swapped:
                        return model.model_loaded_weight_memory - before_bytes
                if not is_stale and model.model_loaded_weight_memory > 0 and not model.model_lowvram:
                    self._move_buffers(device_to)
                    patcher.apply_hooks(patcher.forced_hooks, force_apply=True)
                    return 0
                fits = budget_bytes >= patcher.model_size() + unsaved_buffer_bytes(model)
                patcher.load(device_to, lowvram_model_memory=budget_bytes, force_patch_weights=force_patch_weights, full_load=fits)
            except BaseException:
                patcher.detach()
                raise
            return model.model_loaded_weight_memory - before_bytes

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0, force_patch_weights: bool = False) -> int:
        """Take layers off the device, the smallest first, until *memory_to_free* bytes are free. Returns the bytes freed.

        They stream from then on. Layers that cannot are left; 0 where weights are computed with in place.
        """
        patcher, model = self._patcher, self._model
        device = _device(model.loaded_device)
        if device.is_host:
            return 0
        with patcher.use_ejected():
            layers = LayerLoading(patcher, device, patcher.load_device, force_patch_weights)
            freed_bytes, buffer_before = 0, model.model_offload_buffer_memory
            candidates = [layer for layer in layers_of(model) if layer.is_resident and layer.can_stream]
            for layer in sorted(candidates, key=lambda layer: layer.size_bytes):
                if freed_bytes >= memory_to_free + model.model_offload_buffer_memory - buffer_before:
                    break
                if freed_bytes == 0:
                    patcher.unpatch_hooks()
                layers.take_home(layer, device_to)
                layers.stream(layer)
                freed_bytes += layer.size_bytes
                model.model_offload_buffer_memory = max(model.model_offload_buffer_memory, layers.call_bytes(layer))
                model.model_lowvram = True
            self._lock_host_memory(device, freed_bytes > 0 and not force_patch_weights)
            model.model_loaded_weight_memory -= freed_bytes
            log.info(
                "%s: %s moved off %s, %s stay",
                type(model).__name__,
                megabytes(freed_bytes),
                model.loaded_device,
                megabytes(model.model_loaded_weight_memory),
            )
        return freed_bytes

    def detach(self, unpatch_all: bool = True) -> PatchedModule:
        """Leave the module: eject, and with *unpatch_all* put every pristine weight back. Returns the module."""
        patcher = self._patcher
        patcher.eject_model()
        patcher.model_patches_to(patcher.offload_device)
        if unpatch_all:
            patcher.unpatch_model(patcher.offload_device, unpatch_weights=True)
        call_back(patcher, CallbacksMP.ON_DETACH, unpatch_all)
        return self._model

    def pin_weight(self, key: str) -> None:
        """Have the host memory of the module page-locked, soon and in whole blocks; that ends with the module, or with the block."""
        if comfy.model_management.manager().pinner.request(self._model, self.pristine_weights()):
            self._patcher.pinned.add(key)

    def unpin_weight(self, key: str) -> None:
        """Take back ``pin_weight_to_device``; the block stays page-locked for the module's other weights."""
        self._patcher.pinned.discard(key)

    def unpin_all_weights(self) -> None:
        """Take back every ``pin_weight_to_device``."""
        for key in list(self._patcher.pinned):
            self._patcher.unpin_weight(key)

    @property
    def _object_patches(self) -> ObjectPatches:
        return ObjectPatches(self._model, self._patcher.object_patches, self._patcher.object_patches_backup)

    def _take_home_below(self, names: Collection[str]) -> None:
        """Before other objects take the places *names*: what is loaded of those there goes home, and the next load completes the module."""
        patcher, model = self._patcher, self._model
        places = [own_path(model, name) for name in names]
        below = [path for path in patcher.backup if any(path == place or path.startswith(f"{place}.") for place in places)]
        if below:
            patcher.unpatch_hooks()
            for layer in [layer for layer in layers_of(model) if not set(below).isdisjoint(layer.parameters.values())]:
                model.model_loaded_weight_memory = max(0, model.model_loaded_weight_memory - layer.size_bytes * layer.is_resident)
                wipe_lowvram_weight(layer.module)
                vars(layer.module).pop("comfy_patched_weights", None)
            for path in below:
                self._placement.put_back(path, patcher.offload_device)
        if below or any(_has_weights(patcher.object_patches.get(name)) for name in names):
            model.model_lowvram = True

    def _unpatch_weights(self, device_to: torch.device | None) -> None:
        patcher, model = self._patcher, self._model
        patcher.unpatch_hooks()
        patcher.unpin_all_weights()
        home = patcher.offload_device if device_to is None else device_to
        for path in list(patcher.backup):
            self._placement.put_back(path, home)
        for module in model.modules():
            move_weight_functions(module, device_to)
            wipe_lowvram_weight(module)
            module.__dict__.pop("comfy_patched_weights", None)
        fetcher: WeightFetcher | None = vars(model).pop(FETCHER, None)
        if fetcher is not None:
            fetcher.release()
        if device_to is not None:
            note_device(model, device_to)
        model.model_lowvram = False
        model.lowvram_patch_counter = 0
        model.model_loaded_weight_memory = 0
        model.model_offload_buffer_memory = 0
        model.current_weight_patches_uuid = None

    def _move_buffers(self, torch_device: torch.device | None) -> None:
        device, backups = _device(torch_device), self._patcher.backup_buffers
        if not device.is_host and (self._patcher.object_patches or not backups):
            BufferPlacement(self._model, backups).move(device.receive)

    def _lock_host_memory(self, device: Device, is_streamed: bool) -> None:
        """Have the blocks page-locked that layers are fetched from; blocks whose weights were given up are let go first."""
        pinner = comfy.model_management.manager().pinner
        if any(backup.weight is None for backup in self._patcher.backup.values()):
            pinner.release(self._model)
        if is_streamed and device.fetches_from_locked_memory:
            pinner.request(self._model, self.pristine_weights())

    def _take_back_outdated_layers(self) -> None:
        """Put the layers back whose weights other patches than this patcher's made, so that the next load redoes only them.

        On the host they are merely marked: the load drops each old value right before it makes the new one, which gets its memory then.
        """
        patcher, model = self._patcher, self._model
        patcher.unpatch_hooks()
        device = _device(model.loaded_device)
        layers = LayerLoading(patcher, device, patcher.load_device)
        for layer in [layer for layer in layers_of(model) if layer.is_resident and layers.is_outdated(layer)]:
            if device.is_host:
                layer.module.comfy_patched_weights = False
            else:
                layers.take_home(layer, patcher.offload_device)
            model.model_loaded_weight_memory = max(0, model.model_loaded_weight_memory - layer.size_bytes)

    def _note_loaded(self, plan: LayerPlan, device_to: torch.device | None) -> None:
        model, streamed_bytes = self._model, sum(layer.size_bytes for layer in plan.streamed)
        loaded_bytes = max(0, self._patcher.model_size() - streamed_bytes)
        model.model_lowvram = bool(plan.streamed)
        model.model_loaded_weight_memory = loaded_bytes
        model.model_offload_buffer_memory = plan.buffer_bytes
        model.current_weight_patches_uuid = self._patcher.patches_uuid
        if device_to is not None:
            note_device(model, device_to)
        for reason in ContentIdentity(self._patcher).reasons()[:REASONS_SHOWN]:
            comfy.model_management.ram_cache().note_bypass(f"patches of {type(model).__name__}", reason, "unique")
        log.info(
            "%s loaded %s: %s on %s, %s on the host, %d weights patched at each use",
            type(model).__name__,
            "partially" if plan.streamed else "completely",
            megabytes(loaded_bytes),
            model.loaded_device,
            megabytes(streamed_bytes),
            model.lowvram_patch_counter,
        )


def _has_weights(replacement: object) -> bool:
    return isinstance(replacement, torch.nn.Module) and next(replacement.parameters(), None) is not None


def _device(torch_device: torch.device | None) -> Device:
    """The managed device that *torch_device* stands for (None: the host)."""
    devices = comfy.model_management.manager().devices
    return devices.host if torch_device is None else devices.find(torch_device)
