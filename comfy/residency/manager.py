"""Which models are on which device, and making room for the next one."""

from __future__ import annotations

import gc
import logging
import weakref
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from comfy.ram_model_cache.null import NullRamModelCache
from comfy.ram_model_cache.values import DeviceEvent
from comfy.residency.arena_pinner import ArenaPinner
from comfy.residency.device_table import DeviceTable
from comfy.residency.devices import Device
from comfy.residency.loaded_model import EVERYTHING, LoadedModel
from comfy.residency.loaded_models import LoadedModels
from comfy.residency.memory_states import VRAMState
from comfy.residency.pinning import PinLedger, default_pin_budget_bytes
from comfy.units import megabytes
from comfy.weight_files.spare_memory import SpareMemory, spare_memory

if TYPE_CHECKING:
    from torch import device

    from comfy.residency.model_cache import AnyCache
    from comfy.residency.protocols import Patcher

log = logging.getLogger(__name__)
EARLY_MARGIN = 2.0  # times the memory that a computation asks for is left to it, and this share of the card, before weights are sent early
EARLY_SPARED_SHARE = 0.1
NO_ROOM = 0.1  # a budget in bytes that nothing fits; 0 would mean "no limit" to LoadedModel.model_load


class ModelManager:
    """Moves models to devices and off them. It holds no strong reference to a model.

    The thread that runs nodes loads and frees; other threads may read the list. ``ram_cache`` holds the models that may leave the device
    or the executor without being read again; inside its critical sections it lets no model go, so the loops over the list lie in them.
    ``pinner`` page-locks, within the budget of ``pin_ledger``, the host memory of models that come back from there.
    """

    def __init__(
        self,
        args: Namespace,
        devices: DeviceTable | None = None,
        ram_cache: AnyCache | None = None,
        loaded: LoadedModels | None = None,
        pinner: ArenaPinner | None = None,
        spare: SpareMemory | None = None,
    ) -> None:
        """*loaded* is the list that the owner of *ram_cache* was given; what is None is made, or is the process's own (*spare*)."""
        self.args = args
        self.devices = DeviceTable(args) if devices is None else devices
        self.ram_cache: AnyCache = NullRamModelCache() if ram_cache is None else ram_cache
        self.pinner = pinner or ArenaPinner(PinLedger(default_pin_budget_bytes(self.devices.kind, args.disable_pinned_memory)))
        self.pin_ledger = self.pinner.ledger
        self._loaded = LoadedModels() if loaded is None else loaded
        self._spare = spare or spare_memory()
        self._expected: list[weakref.ref[Patcher]] = []
        self._left: list[LoadedModel] = []  # for RAM, in the running prompt
        self._loading: tuple[object, ...] = ()  # the modules of the load in progress

    @property
    def current_loaded_models(self) -> list[LoadedModel]:
        """The list itself, the model loaded last first; node packs read and change it."""
        return self._loaded.items

    def load_models_gpu(
        self,
        models: Sequence[Patcher],
        memory_required: float = 0,
        force_patch_weights: bool = False,
        minimum_memory_required: float | None = None,
        force_full_load: bool = False,
    ) -> None:
        """Bring the patchers *models*, and models their patches need, to their devices; the last of the list loads first.

        *memory_required* bytes are wanted for activations, of which *minimum_memory_required* (default: all) are never given
        to weights. Other models are moved away first, as far as needed. What still does not fit stays on the host and is
        fetched layer by layer, unless *force_full_load*. Raises what a copy raises, out-of-memory included.
        """
        with self.ram_cache.critical_section():
            self._loading = tuple(patcher.model for patcher in models)
            try:
                self._load(models, memory_required, force_patch_weights, minimum_memory_required, force_full_load)
            finally:
                self._drop_early(self._loading)
                self._loading = ()
            self._send_early(memory_required)

    def expect(self, models: Iterable[Patcher]) -> None:
        """The running prompt will load *models*: what fits of their weights is sent to the card while those loaded before compute."""
        self._expected += [weakref.ref(patcher) for patcher in models]

    def end_prompt(self) -> None:
        """Foresee no load any more, and have the host memory of models that left for RAM page-locked before they come back."""
        self.expect_nothing()
        left, self._left = self._left, []
        for loaded_model in left:
            patcher = loaded_model.model
            if patcher is not None:
                self.pinner.request(patcher.model, patcher.pristine_weights())

    def expect_nothing(self) -> None:
        """No load is foreseen any more; what was sent is dropped."""
        self._expected = []
        self.distrust(None)

    def has_sent(self) -> bool:
        """Whether weights of a model that is not loaded yet are on a card."""
        return any(accelerator.early is not None and accelerator.early.size_bytes() for accelerator in self.devices.accelerators)

    def distrust(self, patchers: Iterable[Patcher] | None) -> None:
        """Somebody may have written into the weights of *patchers* (None: of any): what was sent of them is dropped. Any thread."""
        if patchers is not None:
            self._drop_early([patcher.model for patcher in patchers])
            return
        for accelerator in self.devices.accelerators:
            if accelerator.early is not None:
                accelerator.early.drop()

    def _send_early(self, memory_required: float) -> None:
        """After a load that asked for *memory_required* bytes to compute with: send for the newest of the expected models."""
        living = [patcher for reference in self._expected if (patcher := reference()) is not None]
        waiting = [patcher for patcher in living if not self._is_loaded(patcher)]
        self._expected = [weakref.ref(patcher) for patcher in waiting]
        if not waiting or self.devices.vram_state == VRAMState.NO_VRAM:
            return
        patcher = waiting[-1]
        device, weights = self.devices.find(patcher.load_device), getattr(patcher, "weights_to_send", None)
        if device.early is not None and weights is not None:
            spared_bytes = device.working_bytes(EARLY_MARGIN * memory_required) + EARLY_SPARED_SHARE * device.total_bytes()
            room_bytes = device.free_bytes() - spared_bytes
            sent_bytes = device.early.send(patcher.model, weights(), room_bytes)
            if sent_bytes:
                log.info("%s of %s are sent to %s ahead", megabytes(sent_bytes), type(patcher.model).__name__, device.torch_device)

    def _is_loaded(self, patcher: Patcher) -> bool:
        return any(loaded.model is not None and loaded.model.model is patcher.model for loaded in self.current_loaded_models)

    def _drop_early(self, modules: Sequence[object]) -> None:
        """Drop what was sent of *modules*, which are loaded now."""
        for accelerator in self.devices.accelerators:
            if accelerator.early is not None and any(accelerator.early.belongs_to(module) for module in modules):
                accelerator.early.drop()

    def _yield_early(self, device: device | None, memory_required: float) -> None:
        """Drop what was sent early to *device* if *memory_required* bytes are not free without it, unless it is being loaded."""
        if device is None:
            return
        found = self.devices.find(device)
        early = found.early
        if early is None or not early.size_bytes() or any(early.belongs_to(module) for module in self._loading):
            return
        if found.free_bytes() < memory_required:
            early.drop()

    def _load(
        self,
        models: Sequence[Patcher],
        memory_required: float,
        force_patch_weights: bool,
        minimum_memory_required: float | None,
        force_full_load: bool,
    ) -> None:
        self.cleanup_models_gc()
        self._spare.release()  # what no load has taken over by now, computing may need
        loaded_models = [self._loaded_model_of(patcher) for patcher in _with_dependencies(models)]
        for loaded_model in loaded_models:
            self._take_out_clones(loaded_model)
        self._make_room(loaded_models, memory_required, minimum_memory_required)
        for number, loaded_model in enumerate(loaded_models):
            device = self.devices.find(loaded_model.device)
            least = self._least_working_bytes(device, memory_required, minimum_memory_required)
            least += _buffer_bytes(device, loaded_models[:number], loaded_models[number:], least)
            try:
                loaded_model.model_load(
                    self._weight_budget(loaded_model, device, least, force_full_load), force_patch_weights=force_patch_weights
                )
            except BaseException:
                self.ram_cache.remeasure(loaded_model)
                raise
            self._loaded.add(loaded_model)
            if self.ram_cache.reclaim(loaded_model) is DeviceEvent.RETURNED:
                self.pinner.request(loaded_model.model.model, loaded_model.model.pristine_weights())

    def free_memory(self, memory_required: float, device: device | None, keep_loaded: Iterable[LoadedModel] = ()) -> list[LoadedModel]:
        """Move models off *device* until *memory_required* bytes are free there; returns those that left it entirely.

        Order: the model with the most bytes on the host already, then the smallest, then the one loaded longest ago. The last
        one touched is only shortened if part of it is enough. With smart memory off, every model goes. None as *device* only
        marks all models as not in use. What left goes to the RAM model cache if its loader put it there.
        """
        with self.ram_cache.critical_section():
            return self._free(memory_required, device, list(keep_loaded))

    def _free(self, memory_required: float, device: device | None, kept: list[LoadedModel]) -> list[LoadedModel]:
        self.cleanup_models_gc()
        self._yield_early(device, memory_required)
        candidates = []
        for age, loaded_model in enumerate(reversed(self.current_loaded_models)):
            patcher = loaded_model.model  # kept in the candidate, so that it cannot die under the loop below
            if patcher is not None and (device is None or loaded_model.device == device) and loaded_model not in kept:
                candidates.append((-loaded_model.model_offloaded_memory(), loaded_model.model_memory(), age, loaded_model, patcher))
                loaded_model.currently_used = False
        unloaded = []
        for *_, loaded_model, patcher in sorted(candidates, key=lambda candidate: candidate[:3]):
            wanted = self._bytes_to_free(memory_required, device)
            if wanted > 0 and loaded_model.model_unload(wanted):
                log.debug("unloaded %s from %s", type(patcher.model).__name__, loaded_model.device)
                self._loaded.remove(loaded_model)
                if self.ram_cache.retain(loaded_model) is DeviceEvent.LEFT:
                    self._left.append(loaded_model)
                unloaded.append(loaded_model)
        self._trim_allocator(device, bool(unloaded))
        return unloaded

    def unload_all_models(self) -> None:
        """Move every model off every device."""
        for device in self.devices.all_devices():
            self.free_memory(EVERYTHING, device)

    def unload_model_and_clones(self, patcher: Patcher, unload_additional_models: bool = True, all_devices: bool = False) -> None:
        """Move *patcher*'s module, and by default the models attached to it, off the compute device (or all)."""
        own = [patcher, *(patcher.get_nested_additional_models() if unload_additional_models else [])]
        going = {other.clone_base_uuid for other in own}
        kept = [
            loaded_model
            for loaded_model in self.current_loaded_models
            if loaded_model.model is None or getattr(loaded_model.model, "clone_base_uuid", None) not in going
        ]
        for device in self.devices.all_devices() if all_devices else [self.devices.compute_device()]:
            self.free_memory(EVERYTHING, device, kept)

    def loaded_models(self, only_currently_used: bool = False) -> list[Patcher]:
        """The living patchers in the list, the latest first."""
        return self._loaded.patchers(only_currently_used)

    def cleanup_models(self) -> None:
        """Drop the loaded_models of modules that are gone."""
        self._loaded.forget_ended()

    def cleanup_models_gc(self) -> None:
        """Drop ended loaded_models; collect garbage once if a module outlived all its patchers, and name it if it still does."""
        if self._loaded.has_news():
            self.cleanup_models()
        if not self._loaded.leaked():
            return
        log.info("a model outlived its last patcher; collecting garbage")
        gc.collect()
        self.soft_empty_cache()
        self.cleanup_models()
        for loaded_model in self._loaded.leaked():
            if loaded_model.real_model is not None:
                log.warning("memory leak: something still refers to a %s that no patcher uses", type(loaded_model.real_model()).__name__)

    def soft_empty_cache(self) -> None:
        """Give cached device memory, and what dropped weights left in the host's, back to the system."""
        self._spare.release()
        for accelerator in self.devices.accelerators:
            accelerator.empty_cache()

    def _loaded_model_of(self, patcher: Patcher) -> LoadedModel:
        loaded_model = self._loaded.find(patcher)
        if loaded_model is None:
            log.info("Requested to load %s", type(patcher.model).__name__)
            return self._loaded.new(patcher)
        loaded_model.currently_used = True
        return loaded_model

    def _take_out_clones(self, loaded_model: LoadedModel) -> None:
        for other in list(self.current_loaded_models):
            patcher = other.model
            if patcher is not None and loaded_model.model.is_clone(patcher):
                patcher.detach(unpatch_all=False)
                self._loaded.forget(other)

    def _make_room(self, loaded_models: Sequence[LoadedModel], memory_required: float, minimum_memory_required: float | None) -> None:
        needed: dict[device, float] = {}
        for loaded_model in loaded_models:
            needed[loaded_model.device] = needed.get(loaded_model.device, 0) + loaded_model.model_memory_required(loaded_model.device)
        for torch_device, weight_bytes in needed.items():
            device = self.devices.find(torch_device)
            if device.is_host:
                continue
            self.free_memory(weight_bytes * device.margin + device.working_bytes(memory_required), torch_device)
            least = self._least_working_bytes(device, memory_required, minimum_memory_required)
            if _free_for_weights(device) < least:
                log.info("%d models unloaded", len(self.free_memory(least, torch_device)))

    @staticmethod
    def _least_working_bytes(device: Device, memory_required: float, minimum_memory_required: float | None) -> float:
        return device.working_bytes(memory_required if minimum_memory_required is None else minimum_memory_required)

    def _weight_budget(self, loaded_model: LoadedModel, device: Device, least_bytes: float, force_full_load: bool) -> float:
        """Bytes that may be loaded beyond what is there (0: no limit)."""
        state = VRAMState.DISABLED if device.is_host else self.devices.vram_state
        if state == VRAMState.NO_VRAM:
            return NO_ROOM
        if force_full_load or state not in (VRAMState.LOW_VRAM, VRAMState.NORMAL_VRAM):
            return 0
        loaded_bytes = loaded_model.model_loaded_memory() if loaded_model.model.current_loaded_device() == loaded_model.device else 0
        free_bytes = _free_for_weights(device) + loaded_bytes
        share = min(free_bytes * device.minimum_weight_share, free_bytes - device.working_bytes())
        return max(0, free_bytes - least_bytes, share) - loaded_bytes or NO_ROOM

    def _bytes_to_free(self, memory_required: float, device: device | None) -> float:
        if device is None:
            return 0
        if self.args.disable_smart_memory:
            return EVERYTHING
        return memory_required - _free_for_weights(self.devices.find(device))

    def _trim_allocator(self, device: device | None, unloaded: bool) -> None:
        if unloaded:
            self.soft_empty_cache()
        elif device is not None and self.devices.vram_state != VRAMState.HIGH_VRAM:
            found = self.devices.find(device)
            if not found.is_host and found.reusable_bytes() > found.free_bytes() * 0.25:
                self.soft_empty_cache()


def _free_for_weights(device: Device) -> int:
    """What is free on *device* and what was sent there early: that is taken by the load it was sent for, or was dropped before."""
    return device.free_bytes() + (0 if device.early is None else device.early.size_bytes())


def _buffer_bytes(device: Device, earlier: Sequence[LoadedModel], others: Sequence[LoadedModel], least_bytes: float) -> float:
    """What the first of the *others* leaves the models loaded with it to stream through: calls take it once all are loaded.

    Those after it may find no other room, unless all fit beside *least_bytes*; the *earlier* ones have planned it, perhaps not taken it.
    """
    if device.is_host:
        return 0
    here = [model for model in others if model.device == device.torch_device]
    pending = sum(model.pending_bytes() for model in earlier if model.device == device.torch_device)
    wanted = sum(model.model_memory_required(model.device) for model in here)
    if wanted * device.margin + least_bytes + pending <= _free_for_weights(device):
        return pending
    return pending + sum(device.stream_buffer_bytes(model.largest_layer_bytes()) for model in here[1:])


def _with_dependencies(models: Sequence[Patcher]) -> list[Patcher]:
    """*models* and the models their patches name, each once, in reverse: the main model loads last and sees what is left."""
    wanted: dict[int, Patcher] = {}
    for patcher in models:
        for needed in (patcher, *patcher.model_patches_models()):
            wanted.setdefault(id(needed), needed)
    return list(reversed(wanted.values()))
