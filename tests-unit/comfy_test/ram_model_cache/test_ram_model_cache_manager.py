"""The RAM model cache on the real model manager: ten thousand cycles with random failures end where they began."""

import gc
import logging
import random
import weakref

import psutil
import pytest
from residency_models import MIB, Layers, management, patcher_of

import comfy.model_management
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView

WIDTH, ESTIMATE_BYTES = 32, 30_000
FILES = tuple(f"file {number}" for number in range(6))
EVERYTHING = 1e32


class Failure(Exception):
    """What a load or a copy raises at random."""


class Failing(random.Random):
    """Chance that also breaks things: *strike* raises one time in *rarity*."""

    def strike(self, rarity):
        if self.randrange(rarity) == 0:
            raise Failure


@pytest.fixture
def soaked(monkeypatch):
    """(manager of a device that fits two models, cache with room for three, chance, weak references to every module)."""
    chance = Failing(7)
    one_bytes = patcher_of(Layers(WIDTH)).model_size()
    memory = HostMemory(system=lambda: MemoryView(64 << 30, 32 << 30))

    def make_cache(owner):
        return RamModelCache(CacheSettings(3 * one_bytes, headroom_bytes=0), owner.hooks(), start_thread=lambda run: None)

    with management(MIB, cache=make_cache, memory=memory) as manager:
        device = manager.devices.accelerators[0]
        device._capacity_bytes = int(2.5 * one_bytes)
        receive = device.receive

        def copy(tensor, non_blocking=False):
            chance.strike(300)
            return receive(tensor, non_blocking)

        monkeypatch.setattr(device, "receive", copy)
        yield manager, manager.ram_cache, chance, weakref.WeakSet()


def finalizers():
    """How many finalizers are registered in this process."""
    return len(weakref.finalize._registry)


def cycle(manager, cache, chance, modules, held):
    """Fetch a model, perhaps patch and use it, perhaps lose it, perhaps clear the device."""

    def load(keys):
        chance.strike(10)
        patcher = patcher_of(Layers(WIDTH, seed=chance.randrange(100)))
        modules.add(patcher.model)
        return {keys[0]: patcher}

    name = chance.choice(FILES)
    try:
        held[name] = cache.fetch({name: ESTIMATE_BYTES}, load)[name]
        model = held[name].clone() if chance.random() < 0.3 else held[name]
        if model is not held[name]:
            model.add_patches({"first.weight": (model.model.first.weight.detach() * 0,)})
        comfy.model_management.load_models_gpu([model])
        if chance.random() < 0.2:
            manager.free_memory(EVERYTHING, model.load_device)
    except Failure:
        assert cache.check() == []
    if chance.random() < 0.6:
        held.clear()
    if chance.random() < 0.02:
        cache.clear()
    cache.safe_point()


@pytest.mark.parametrize("cycles", [2500, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_of_cycles_with_failures_end_where_they_began(soaked, caplog, cycles):
    manager, cache, chance, modules = soaked
    held, process = {}, psutil.Process()
    caplog.set_level(logging.INFO)
    gc.collect()  # what earlier tests left
    outlived, finalizers_before = 0, finalizers()

    def take_complaints():
        found = sum("outlived" in record.message or "leak" in record.message for record in caplog.records)
        caplog.clear()
        return found

    for number in range(cycles):
        cycle(manager, cache, chance, modules, held)
        if number == cycles // 10:
            warm_bytes = process.memory_info().rss
        if number % 500 == 0:
            assert cache.check() == []
            assert len(manager.current_loaded_models) <= len(FILES) and len(modules) <= 2 * len(FILES)
            outlived += take_complaints()
    counters = cache.stats().counters
    assert min(counters.hits, counters.misses, counters.failures, counters.vram_evictions, counters.reclaims) > 0.03 * cycles
    assert min(counters.evictions["room"], counters.evictions["cleared"]) > 0.01 * cycles
    held.clear()
    cache.close()
    manager.unload_all_models()
    manager.cleanup_models()
    assert outlived + take_complaints() == 0, "a garbage collection was forced for a cached model"
    assert manager.current_loaded_models == [] and cache.check() == []
    gc.collect()
    assert len(modules) == 0 and manager.devices.accelerators[0].used_bytes() == 0
    assert finalizers() == finalizers_before
    assert process.memory_info().rss - warm_bytes < 30 * MIB
