"""Builds the RAM model cache from the flags, and answers what it asks of its owner."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.cache import NullRamModelCache, OwnerHooks, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory
from comfy.ram_model_cache.sizing import settings_from
from comfy.ram_model_cache.storage import Storages, host_storages
from comfy.ram_model_store.at_hand import parts_at_hand
from comfy.residency.loaded_model import LoadedModel
from comfy.residency.loaded_models import LoadedModels
from comfy.weight_files.spare_memory import SpareMemory, spare_memory

if TYPE_CHECKING:
    from comfy.patching.base_weights import Base, BaseWeights
    from comfy.ram_model_cache.models import LoadedModel as CachedLoadedModel
    from comfy.ram_model_cache.models import Patcher
    from comfy.ram_model_store.store import RamModelStore
    from comfy.residency.devices import Device

base_weights = lazy_module("comfy.patching.base_weights")
AnyCache = RamModelCache | NullRamModelCache
PATCHED_SHARE = 0.5
PendingPaths = Callable[[], Sequence[str]]


@dataclass(frozen=True)
class CacheOwner:
    """What the RAM model cache may ask of this server. Complete as soon as it is made, which imports no torch; any thread.

    *loaded* is the list of models on devices, *spare* the memory of dropped weights, *memory* the RAM of this host. *accelerators* gives
    the devices with memory of their own, *pending_paths* the real paths of the files that queued prompts name, in their order, *store*
    the store of weights.
    """

    loaded: LoadedModels = field(default_factory=LoadedModels)
    spare: SpareMemory = field(default_factory=spare_memory)
    memory: HostMemory = field(default_factory=HostMemory)
    accelerators: Callable[[], Sequence[Device]] = tuple
    pending_paths: PendingPaths = tuple
    store: Callable[[], RamModelStore | None] = lambda: None

    @cached_property
    def _base_weights(self) -> BaseWeights:
        return base_weights.BaseWeights()

    def hooks(self) -> OwnerHooks:
        """The methods below, as the cache takes them."""
        return OwnerHooks(
            self.available_bytes,
            self.forget_loaded,
            self.restore_base,
            pending_paths=self.pending_paths,
            raise_if_interrupted=interrupt_flag.raise_if_set,
            measure=self.measure,
            release_spare=self.spare.release,
            unpatch_base=self.unpatch_base,
            fresh_bytes=self.fresh_bytes,
            relieve=self.relieve,
        )

    def available_bytes(self) -> int:
        """Host RAM that can still be had, memory that lies ready for the next load included."""
        return self.memory.available_bytes() + self.spare.total_bytes()

    def forget_loaded(self, loaded_model: CachedLoadedModel) -> None:
        """Take a model that the manager told the cache of off the list, and detach its finalizer."""
        if isinstance(loaded_model, LoadedModel):
            self.loaded.forget(loaded_model)

    def note_base(self, patcher: Patcher) -> None:
        """Remember the weights of *patcher*, which was just loaded, for :meth:`restore_base`."""
        self._base_weights.note(cast("Base", patcher))

    def restore_base(self, patcher: Patcher) -> None:
        """Put back the weights of *patcher* that :meth:`note_base` noted; patched ones stay if they take little of the free memory."""
        base = cast("Base", patcher)
        spare_bytes = int(self.available_bytes() * PATCHED_SHARE) if base_weights.patched_bytes(base) else 0
        self._base_weights.restore(base, spare_bytes)

    def unpatch_base(self, patcher: Patcher) -> bool:
        """Give up the patched weights of *patcher*'s module that :meth:`restore_base` let stay in host RAM; whether there were any."""
        base = cast("Base", patcher)
        is_on_device = base.current_loaded_device() in [device.torch_device for device in self.accelerators()]
        if is_on_device or base_weights.patched_bytes(base) == 0:
            return False
        self._base_weights.restore(base)
        return True

    def fresh_bytes(self, key: Hashable, estimated_bytes: int) -> int:
        """What reading *key* takes of the RAM: nothing where the running load has found it in the store."""
        return 0 if key in parts_at_hand.get() else estimated_bytes

    def relieve(self, wanted_bytes: int) -> None:
        """Free *wanted_bytes* of what the store holds, if there is one."""
        store = self.store() if wanted_bytes > 0 else None
        if store is not None:
            store.relieve(wanted_bytes)

    def measure(self, patcher: Patcher) -> Storages:
        """{storage: bytes} of the host memory that *patcher*'s module takes; what a simulated accelerator holds is not the host's."""
        accelerators = self.accelerators()
        return host_storages(patcher, lambda tensor: any(device.plays_memory_of(tensor) for device in accelerators))


def make_ram_cache(args: Namespace, owner: CacheOwner) -> AnyCache:
    """The cache that *args* asks for, or the one of size 0; says in the log which and why."""
    settings = settings_from(args, owner.memory)
    return NullRamModelCache() if settings is None else RamModelCache(settings, owner.hooks())
