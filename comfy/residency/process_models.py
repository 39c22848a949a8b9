"""Everything in this process that holds models: made here, once each, when it is first needed."""

from __future__ import annotations

import threading
from argparse import Namespace
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.cache import RamModelCache
from comfy.ram_model_cache.sizing import settings_anew
from comfy.residency.device_table import DeviceTable
from comfy.residency.dtype_policy import DtypePolicy
from comfy.residency.expected_devices import first_table
from comfy.residency.loaded_models import LoadedModels
from comfy.residency.manager import ModelManager
from comfy.residency.model_cache import AnyCache, CacheOwner, PendingPaths, make_ram_cache
from comfy.residency.torch_settings import apply_torch_settings
from comfy.weight_files.spare_memory import spare_memory

if TYPE_CHECKING:
    from comfy.ram_model_cache.models import Patcher
    from comfy.ram_model_store.store import RamModelStore
    from comfy.residency.devices import Device

model_store = lazy_module("comfy.residency.model_store")
stand_ins = lazy_module("comfy.residency.stand_ins")


class ProcessModels:
    """Owner of the process's list of loaded models, RAM model cache, model manager and dtype policy.

    Making it imports no torch, asks for no device and reads no flag: *args* may still be filled. The list and what the cache may ask
    are there from the start; the cache follows at the first :meth:`ram_cache`, the manager at the first :meth:`manager`, which imports
    torch. Each is given what it needs when it is made, in this order, so none of them knows the next. Any thread.
    """

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self._lock = threading.RLock()
        self._loaded = LoadedModels()
        self.spare = spare_memory()
        self._queue_paths: PendingPaths = tuple
        self._cache_owner = CacheOwner(
            self._loaded, self.spare, accelerators=self._accelerators, pending_paths=self._pending_paths, store=self.store
        )
        self._store: RamModelStore | None = None
        self._ram_cache: AnyCache | None = None
        self._used: tuple[ModelManager, DtypePolicy] | None = None
        self._table: Callable[[Namespace], DeviceTable] = first_table

    def watch_queue(self, pending_paths: PendingPaths) -> None:
        """Have the cache plan for the models whose files *pending_paths* names (real paths, in the order in which they will be asked for).

        It is asked from any thread. For the queue's owner.
        """
        self._queue_paths = pending_paths

    def ram_cache(self) -> AnyCache:
        """The RAM model cache of the manager in use; asking makes no manager and imports no torch."""
        if self._used is not None:
            return self._used[0].ram_cache
        with self._lock:
            if self._ram_cache is None:
                self._ram_cache = make_ram_cache(self._args, self._cache_owner)
            return self._ram_cache

    def store(self) -> RamModelStore | None:
        """The store of weights that outlive this process, once it was opened."""
        return self._store

    def open_store(self) -> RamModelStore | None:
        """Open the store that the flags name; None where they name none, or it cannot be had, which is said.

        Raises ``StoreRefused`` for a folder that was named and may not be used. Imports no torch.
        """
        with self._lock:
            if self._store is None and self._args.ram_model_store:
                self._store = model_store.make_store(self._args, self.ram_cache(), self._cache_owner.memory)
            return self._store

    def has_manager(self) -> bool:
        """Whether a manager was made, or put in use."""
        return self._used is not None

    def manager(self) -> ModelManager:
        """The model manager; the first call imports torch and asks for devices."""
        return self._parts()[0]

    def devices(self) -> DeviceTable:
        """The manager's devices."""
        return self.manager().devices

    def policy(self) -> DtypePolicy:
        """The rules for dtypes on the manager's devices."""
        return self._parts()[1]

    def use(self, manager: ModelManager | None) -> ModelManager | None:
        """Put *manager* in place of the one in use (None: make one at next use); returns the one before, or None. For tests."""
        before = None if self._used is None else self._used[0]
        self._used = None if manager is None else (manager, DtypePolicy(manager.devices))
        return before

    def meet_devices(self) -> bool:
        """After a restore: use the devices that are there in place of those expected; whether what was loaded suits them.

        What does not suit leaves the cache. Call it while no prompt runs. Asks for devices; makes no manager.
        """
        with self._lock:
            self._table = DeviceTable
            if self._used is None:
                return True
            manager, policy = self._used
            expected, before = manager.devices.all_devices(), policy.answers()
            manager.devices = DeviceTable(self._args)
            if self._store is not None:
                self._lock_stored_weights(manager, self._store)
            self.use(manager)
            met = self._used[1]
            suits = manager.devices.all_devices()[: len(expected)] == expected and met.answers() == before
        if not suits:
            self.ram_cache().clear("the device is not the one that --snapshot-start expected")
        return suits

    def take_limits_anew(self, renamed: Callable[[Hashable], Hashable] = lambda key: key) -> None:
        """After a restore: fit the cache into the host's memory as it is now; *renamed* gives a key with its files' new identities."""
        cache = self.ram_cache()
        if isinstance(cache, RamModelCache):
            memory = self._cache_owner.memory
            cache.resettle(settings_anew(self._args, memory, cache.settings, cache.stats().kept_bytes), renamed)

    def note_base(self, patcher: Patcher) -> None:
        """Remember the weights of *patcher*, which a loader has just built, as they are."""
        self._cache_owner.note_base(patcher)

    def _parts(self) -> tuple[ModelManager, DtypePolicy]:
        used = self._used
        if used is None:
            with self._lock:
                if self._used is None:
                    manager = ModelManager(
                        self._args, self._table(self._args), ram_cache=self.ram_cache(), loaded=self._loaded, spare=self.spare
                    )
                    if self._store is not None:
                        self._lock_stored_weights(manager, self._store)
                    apply_torch_settings(self._args, manager.devices.kind)
                    self.use(manager)
                used = self._used
        assert used is not None
        return used

    def _lock_stored_weights(self, manager: ModelManager, store: RamModelStore) -> None:
        """Have the twins of weights in *store* page-locked in their place, and copied from."""
        found = stand_ins.StandIns(store, manager.pin_ledger)
        manager.pin_ledger.keeps_out, manager.pinner.stand_in = store.holds, found.for_locking
        for device in manager.devices.accelerators:
            device.stand_in = found.for_copying

    def _accelerators(self) -> Sequence[Device]:
        return () if self._used is None else self._used[0].devices.accelerators

    def _pending_paths(self) -> Sequence[str]:
        return self._queue_paths()
