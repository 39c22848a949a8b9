"""Loading, evicting and forgetting models on simulated devices."""

import gc
import weakref

import pytest
import torch
from residency_models import HOST, Layers, batch, management, patcher_of

import comfy.model_management
from comfy.model_management import LoadedModel
from comfy.patching.layers import layers_of

SIZE = 4 * (32 * 64 + 64 + 64 * 32 + 32 + 32 * 32 + 32 + 32 + 32 + 32)


def used(manager, index=0):
    return manager.devices.accelerators[index].used_bytes()


def test_a_loaded_model_takes_its_bytes_and_an_evicted_one_returns_them():
    with management(vram_bytes=SIZE * 3) as manager:
        patcher = patcher_of(Layers())
        originals = dict(patcher.model.named_parameters())
        manager.load_models_gpu([patcher])
        assert patcher.model_size() == SIZE == patcher.loaded_size() == used(manager)
        assert all(parameter is not originals[name] for name, parameter in patcher.model.named_parameters())
        assert [entry.model for entry in manager.current_loaded_models] == [patcher]
        manager.unload_all_models()
        assert used(manager) == 0 and patcher.loaded_size() == 0 and manager.current_loaded_models == []
        assert all(parameter is originals[name] for name, parameter in patcher.model.named_parameters())


def test_the_longest_unused_of_equal_models_is_evicted_first():
    with management(vram_bytes=int(SIZE * 2.5)) as manager:
        first, second, third = (patcher_of(Layers(seed=seed)) for seed in range(3))
        for patcher in (first, second, third):
            manager.load_models_gpu([patcher])
        assert manager.loaded_models() == [third, second, first]
        assert 0 < first.loaded_size() < SIZE and second.loaded_size() == third.loaded_size() == SIZE, "half of the first was enough"
        manager.load_models_gpu([patcher_of(Layers(seed=3))])
        assert first.loaded_size() == 0 and 0 < second.loaded_size() < SIZE and third.loaded_size() == SIZE


def test_the_most_offloaded_then_the_smallest_goes_first():
    with management(vram_bytes=SIZE * 20) as manager:
        large, small, shortened = patcher_of(Layers(width=64)), patcher_of(Layers(seed=1)), patcher_of(Layers(seed=2))
        for patcher in (small, shortened, large):
            manager.load_models_gpu([patcher])
        shortened.partially_unload(HOST, 4096)
        assert 0 < shortened.loaded_size() < SIZE
        device = manager.devices.compute_device()
        free = manager.devices.find(device).free_bytes()
        assert [entry.model for entry in manager.free_memory(free + shortened.loaded_size(), device)] == [shortened]
        free = manager.devices.find(device).free_bytes()
        assert [entry.model for entry in manager.free_memory(free + SIZE, device)] == [small]
        assert manager.loaded_models() == [large]


def test_free_memory_shortens_the_last_model_when_a_part_is_enough():
    with management(vram_bytes=SIZE * 2) as manager:
        patcher = patcher_of(Layers())
        manager.load_models_gpu([patcher])
        device = manager.devices.compute_device()
        assert manager.free_memory(SIZE + 1000, device) == []
        assert 0 < patcher.loaded_size() < SIZE
        assert manager.devices.find(device).free_bytes() >= SIZE + 1000
        assert not manager.current_loaded_models[0].currently_used


def test_free_memory_spares_what_it_is_told_to_keep():
    with management(vram_bytes=SIZE * 3) as manager:
        kept, other = patcher_of(Layers()), patcher_of(Layers(seed=1))
        manager.load_models_gpu([kept, other])
        keep = [entry for entry in manager.current_loaded_models if entry.model is kept]
        assert [entry.model for entry in manager.free_memory(1e30, manager.devices.compute_device(), keep)] == [other]
        assert manager.loaded_models() == [kept]


def test_without_smart_memory_everything_else_leaves():
    with management(vram_bytes=SIZE * 10, disable_smart_memory=True) as manager:
        first, second = patcher_of(Layers()), patcher_of(Layers(seed=1))
        manager.load_models_gpu([first])
        manager.load_models_gpu([second])
        assert manager.loaded_models() == [second] and first.loaded_size() == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_partially_loaded_model_computes_the_same_bits(share):
    with management(vram_bytes=SIZE * 4):
        whole = patcher_of(Layers())
        comfy.model_management.load_models_gpu([whole])
        expected = whole.model(batch())
    with management(vram_bytes=max(600, int(SIZE * share))) as manager:
        part = patcher_of(Layers())
        manager.load_models_gpu([part])
        assert part.loaded_size() < SIZE and used(manager) <= max(600, SIZE * share)
        assert torch.equal(part.model(batch()), expected)
        assert manager.devices.accelerators[0].streamed_bytes() > 0
        assert any(layer.is_streamed for layer in layers_of(part.model))


def test_novram_streams_all_that_can_stream():
    with management(vram_bytes=SIZE * 4, novram=True) as manager:
        patcher = patcher_of(Layers())
        manager.load_models_gpu([patcher])
        assert [layer.name for layer in layers_of(patcher.model) if not layer.is_streamed] == ["norm"]


def test_a_full_load_beyond_the_device_fails_and_leaves_nothing_behind():
    with management(vram_bytes=SIZE // 2) as manager:
        patcher = patcher_of(Layers())
        originals = dict(patcher.model.named_parameters())
        try:
            manager.load_models_gpu([patcher], force_full_load=True)
            pytest.fail("it cannot have fitted")
        except torch.OutOfMemoryError as failure:  # not pytest.raises: it would keep the frames, and copies in them, alive
            assert comfy.model_management.is_oom(failure)
        assert manager.current_loaded_models == [] and used(manager) == 0 and patcher.backup == {}
        assert all(parameter is originals[name] for name, parameter in patcher.model.named_parameters())
        manager.load_models_gpu([patcher])
        assert patcher.loaded_size() > 0


def test_more_room_later_loads_the_rest():
    with management(vram_bytes=int(SIZE * 1.4)) as manager:
        first, second = patcher_of(Layers()), patcher_of(Layers(seed=1))
        manager.load_models_gpu([first, second])
        assert first.loaded_size() + second.loaded_size() < 2 * SIZE
        manager.free_memory(1e30, manager.devices.compute_device(), [LoadedModel(first)])
        manager.load_models_gpu([first])
        assert first.loaded_size() == SIZE and not any(layer.is_streamed for layer in layers_of(first.model))


def test_a_dropped_model_dies_and_its_entry_goes():
    with management(vram_bytes=SIZE * 4) as manager:
        patcher = patcher_of(Layers())
        manager.load_models_gpu([patcher])
        module = weakref.ref(patcher.model)
        finalizer = manager.current_loaded_models[0].model_finalizer
        assert finalizer.alive and not finalizer.atexit
        gc.disable()
        try:
            del patcher
            assert module() is None, "something keeps the module alive"
        finally:
            gc.enable()
        assert used(manager) == 0 and manager.loaded_models() == []
        manager.cleanup_models_gc()
        assert manager.current_loaded_models == []


def test_an_entry_speaks_for_the_parent_when_a_clone_dies():
    with management(vram_bytes=SIZE * 4) as manager:
        base = patcher_of(Layers())
        middle = base.clone()
        clone = middle.clone()
        manager.load_models_gpu([clone])
        del middle, clone
        gc.collect()
        (entry,) = manager.current_loaded_models
        assert entry.model is base and not entry.is_dead()
        assert [freed.model for freed in manager.free_memory(1e30, entry.device)] == [base]
        assert used(manager) == 0


def test_unloading_detaches_the_finalizer_once():
    with management(vram_bytes=SIZE * 4) as manager:
        patcher = patcher_of(Layers())
        manager.load_models_gpu([patcher])
        finalizer = manager.current_loaded_models[0].model_finalizer
        (entry,) = manager.free_memory(1e30, manager.devices.compute_device())
        assert not finalizer.alive and entry.model_finalizer is None and entry.real_model is None


def test_a_leaked_module_is_named(caplog):
    with management(vram_bytes=SIZE * 4) as manager:
        patcher = patcher_of(Layers())
        manager.load_models_gpu([patcher])
        leaked = patcher.model
        del patcher
        manager.cleanup_models_gc()
        assert "memory leak" in caplog.text and type(leaked).__name__ in caplog.text


def test_only_one_clone_of_a_module_is_listed():
    with management(vram_bytes=SIZE * 4) as manager:
        base = patcher_of(Layers())
        clone = base.clone()
        manager.load_models_gpu([base])
        manager.load_models_gpu([clone])
        assert manager.loaded_models() == [clone] and used(manager) == SIZE


def test_models_that_patches_need_are_loaded_too():
    class NeedsModel:
        def __init__(self, model):
            self.model = model

        def models(self):
            return [self.model]

    with management(vram_bytes=SIZE * 4) as manager:
        base, helper = patcher_of(Layers()), patcher_of(Layers(seed=1))
        base.set_model_attn1_patch(NeedsModel(helper))
        manager.load_models_gpu([base])
        assert set(map(id, manager.loaded_models())) == {id(base), id(helper)}


def test_two_devices_are_counted_apart():
    with management(vram_bytes=SIZE * 2, devices=2) as manager:
        one, two = manager.devices.all_devices()
        first, second = patcher_of(Layers(), one), patcher_of(Layers(seed=1), two)
        manager.load_models_gpu([first, second])
        assert used(manager, 0) == used(manager, 1) == SIZE
        manager.free_memory(1e30, two)
        assert (used(manager, 0), used(manager, 1)) == (SIZE, 0)
        clone = first.clone()
        clone.load_device = two
        manager.load_models_gpu([clone])
        assert (used(manager, 0), used(manager, 1)) == (0, SIZE)


def test_a_host_copy_that_was_given_up_is_copied_back(monkeypatch):
    with management(vram_bytes=SIZE * 2) as manager:
        device = manager.devices.accelerators[0]
        monkeypatch.setattr(type(device), "keeps_host_copy", lambda self: False)
        patcher = patcher_of(Layers())
        expected = patcher.model(batch())
        host = weakref.ref(patcher.model.first.weight)
        manager.load_models_gpu([patcher])
        assert host() is None, "the host copy is still held"
        assert torch.equal(patcher.model(batch()), expected)
        manager.unload_all_models()
        assert torch.equal(patcher.model(batch()), expected)
        assert used(manager) == 0


def test_on_the_cpu_nothing_moves_and_nothing_is_evicted():
    with management() as manager:
        first, second = patcher_of(Layers()), patcher_of(Layers(seed=1))
        originals = dict(first.model.named_parameters())
        manager.load_models_gpu([first])
        manager.load_models_gpu([second], memory_required=1e15)
        assert manager.loaded_models() == [second, first] and first.loaded_size() == SIZE
        assert all(parameter is originals[name] for name, parameter in first.model.named_parameters())
        manager.unload_all_models()
        assert manager.current_loaded_models == [] and first.loaded_size() == 0


def test_module_names_follow_the_manager_in_use():
    with management(vram_bytes=SIZE * 4) as manager:
        patcher = patcher_of(Layers())
        comfy.model_management.load_model_gpu(patcher)
        assert comfy.model_management.current_loaded_models is manager.current_loaded_models
        assert comfy.model_management.loaded_models() == [patcher]
        assert comfy.model_management.get_free_memory() == SIZE * 3
        comfy.model_management.unload_model_and_clones(patcher.clone())
        assert comfy.model_management.current_loaded_models == []
