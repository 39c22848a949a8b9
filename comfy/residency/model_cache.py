"""Builds the RAM model cache from the flags, and answers what it asks of the model manager."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.cache import CacheSettings, NullRamModelCache, OwnerHooks, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory, auto_cap_bytes
from comfy.ram_model_cache.storage import Storages, host_storages
from comfy.units import MIB
from comfy.weight_files.spare_memory import spare_memory

if TYPE_CHECKING:
    from comfy.patching.base_weights import BaseWeights
    from comfy.residency.manager import ModelManager

base_weights = lazy_module("comfy.patching.base_weights")
AnyCache = RamModelCache | NullRamModelCache
log = logging.getLogger(__name__)


class CacheHost:
    """The model manager as the cache sees it. ``manager`` is set later than the cache is made: no model is cached before there is one.
    ``pending_paths`` gives the real paths of the files that queued prompts name. Making it imports no torch.
    """

    def __init__(self, memory: HostMemory | None = None) -> None:
        self.memory = memory or HostMemory()
        self.manager: ModelManager | None = None
        self.pending_paths: Callable[[], Collection[str]] = tuple

    @cached_property
    def base_weights(self) -> BaseWeights:
        """The checksums of what was loaded."""
        return base_weights.BaseWeights()

    def hooks(self) -> OwnerHooks:
        """These methods, as the cache takes them."""
        return OwnerHooks(
            self.available_bytes,
            self.forget_loaded,
            self.restore_base,
            pending_paths=lambda: self.pending_paths(),
            raise_if_interrupted=interrupt_flag.raise_if_set,
            measure=self.measure,
            release_spare=spare_memory().release,
        )

    def available_bytes(self) -> int:
        """Host RAM still to be had; what lies ready for the next load is."""
        return self.memory.available_bytes() + spare_memory().total_bytes()

    def forget_loaded(self, loaded_model: Any) -> None:
        """Take an entry off the manager's list and detach its finalizer."""
        if self.manager is not None:
            self.manager.forget(loaded_model)

    def restore_base(self, patcher: Any) -> None:
        """See :meth:`BaseWeights.restore`."""
        self.base_weights.restore(patcher)

    def measure(self, patcher: Any) -> Storages:
        """Host memory by storage; what a simulated accelerator holds is not the host's."""
        if self.manager is None:
            return host_storages(patcher)
        accelerators = self.manager.devices.accelerators
        return host_storages(patcher, lambda tensor: any(device.plays_memory_of(tensor) for device in accelerators))


def make_ram_cache(args: Namespace, host: CacheHost) -> AnyCache:
    """The cache that *args* asks for, or the one of size 0; says in the log which and why."""
    ttl_s = args.ram_model_cache_ttl
    available_bytes = host.memory.available_bytes()
    if args.no_ram_model_cache or args.ram_model_cache_mb == 0:
        cap_bytes, why = 0, "off by request"
    elif args.ram_model_cache_mb is not None:
        cap_bytes, why = args.ram_model_cache_mb * MIB, "by --ram-model-cache-mb"
    else:
        cap_bytes = auto_cap_bytes(available_bytes)
        why = f"chosen for {available_bytes / 1e9:.0f} GB of free RAM; --ram-model-cache-mb sets it, --no-ram-model-cache turns it off"
    if not cap_bytes:
        if ttl_s is not None:
            log.warning("--ram-model-cache-ttl has no effect: the RAM model cache is off")
        return NullRamModelCache()
    idle = "" if ttl_s is None else f", each until {ttl_s:g} s without use"
    log.info("RAM model cache: models stay in up to %.2f GB of host RAM%s (%s)", cap_bytes / 1e9, idle, why)
    return RamModelCache(CacheSettings(cap_bytes, ttl_s=ttl_s, total_bytes=host.memory.total_bytes()), host.hooks())
