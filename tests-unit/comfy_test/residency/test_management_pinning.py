"""A model that comes back from the RAM model cache has its host memory page-locked; one that is used once does not pay for it."""

import gc

import pytest
import torch
from residency_models import MIB, Layers, batch, management, patcher_of
from test_pinning import FakePins

from comfy.model_management import load_models_gpu
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.residency import arena_pinner
from comfy.residency.arena_pinner import ArenaPinner
from comfy.residency.pinning import PinLedger

EVERYTHING = 1e32


@pytest.fixture
def managed(monkeypatch):
    """(manager of a simulated device with a cache and a fake runtime that pins, that runtime)."""
    monkeypatch.setattr(arena_pinner, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    backend = FakePins()

    def cache(owner):
        return RamModelCache(CacheSettings(1 << 30, headroom_bytes=0), owner.hooks(), start_thread=lambda run: None)

    with management(MIB, cache=cache, pinner=ArenaPinner(PinLedger(1 << 30, backend), start_thread=None)) as manager:
        yield manager, backend
        manager.ram_cache.close()
        gc.collect()
        manager.pinner.work_off()
        assert manager.pin_ledger.total_bytes() == 0 and not backend.ranges and manager.pinner.check() == []


def come_and_go(manager, patcher):
    load_models_gpu([patcher])
    manager.pinner.work_off()
    manager.free_memory(EVERYTHING, patcher.load_device)


def test_the_first_return_from_ram_pins_the_pristine_weights(managed):
    manager, backend = managed
    patcher = manager.ram_cache.admit("model", patcher_of(Layers(width=64)), 1.0)
    expected = patcher.model(batch(64))
    come_and_go(manager, patcher)
    assert not backend.ranges, "a model that is used once pays nothing"
    load_models_gpu([patcher])
    assert not backend.ranges, "the load does not wait for the pages"
    manager.pinner.work_off()
    pristine = {tensor.data_ptr() for tensor in patcher.pristine_weights()}
    assert backend.ranges and set(backend.ranges) <= pristine
    assert manager.pin_ledger.total_bytes() == manager.pinner.stats().pinned_bytes > 0
    assert torch.equal(patcher.model(batch(64)), expected)
    known = dict(backend.ranges)
    come_and_go(manager, patcher)
    come_and_go(manager, patcher)
    assert backend.ranges == known, "later returns find it pinned"


def test_a_model_without_a_place_in_the_cache_is_never_pinned(managed):
    manager, backend = managed
    patcher = patcher_of(Layers(width=64))
    come_and_go(manager, patcher)
    come_and_go(manager, patcher)
    assert not backend.ranges and manager.pinner.stats().models == 0


def test_an_evicted_model_gives_its_pinned_memory_back(managed):
    manager, backend = managed
    patcher = manager.ram_cache.admit("model", patcher_of(Layers(width=64)), 1.0)
    come_and_go(manager, patcher)
    come_and_go(manager, patcher)
    assert backend.ranges
    manager.ram_cache.clear()
    assert backend.ranges, "its last user is still there"
    del patcher
    manager.ram_cache.safe_point()
    gc.collect()
    manager.pinner.work_off()
    assert not backend.ranges
