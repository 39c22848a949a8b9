"""Cached models get their pristine weights back, bit for bit, and weights that were written to are noticed."""

import gc

import pytest
import torch
from residency_models import MIB, Layers, batch, management, patcher_of

import comfy.model_management
from comfy.patching.base_weights import BaseWeights, patched_bytes
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.ram_model_cache.checksums import WeightsChanged
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView

DEVICES = {"processor": None, "simulated": MIB}


def patched_clone(base):
    clone = base.clone()
    clone.add_patches({"first.weight": (torch.ones_like(base.model.first.weight),)})
    return clone


@pytest.mark.parametrize("vram_bytes", DEVICES.values(), ids=DEVICES)
def test_restoring_puts_back_the_weights_that_a_gone_clone_patched_and_leaves_them_on_the_device(vram_bytes):
    with management(vram_bytes):
        base, weights = patcher_of(Layers()), BaseWeights()
        weights.note(base)
        pristine = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
        expected = base.model(batch())
        clone = patched_clone(base)
        comfy.model_management.load_models_gpu([clone])
        assert not torch.equal(clone.model(batch()), expected)
        del clone
        weights.restore(base)
        assert base.loaded_size() > 0
        assert torch.equal(base.model(batch()), expected)
        assert all(torch.equal(tensor, pristine[name]) for name, tensor in base.model.state_dict().items())


@pytest.mark.parametrize("vram_bytes", DEVICES.values(), ids=DEVICES)
def test_object_patches_of_a_gone_clone_are_undone(vram_bytes):
    with management(vram_bytes):
        base, weights = patcher_of(Layers()), BaseWeights()
        weights.note(base)
        original = base.model.norm
        clone = base.clone()
        clone.add_object_patch("norm", torch.nn.Identity())
        comfy.model_management.load_models_gpu([clone])
        assert base.model.norm is not original
        del clone
        weights.restore(base)
        assert base.model.norm is original


@pytest.mark.parametrize("vram_bytes", DEVICES.values(), ids=DEVICES)
def test_patched_weights_stay_for_the_next_clone_with_equal_patches_and_go_for_any_other(vram_bytes):
    with management(vram_bytes):
        base, weights = patcher_of(Layers()), BaseWeights()
        weights.note(base)
        clone = patched_clone(base)
        comfy.model_management.load_models_gpu([clone])
        placed, answer = base.model.first.weight, clone.model(batch())
        del clone
        weights.restore(base, spare_bytes=patched_bytes(base))
        again = patched_clone(base)
        comfy.model_management.load_models_gpu([again])
        assert base.model.first.weight is placed and torch.equal(again.model(batch()), answer)
        del again
        weights.restore(base, spare_bytes=patched_bytes(base) - 1)
        assert patched_bytes(base) == 0 and base.model.first.weight is not placed


@pytest.mark.parametrize("position", [0, -1], ids=["first", "last"])
def test_a_weight_written_in_place_is_named(position):
    with management():
        base, weights = patcher_of(Layers(width=64)), BaseWeights()
        weights.note(base)
        weights.restore(base)
        base.model.second.weight.view(-1)[position] += 1
        with pytest.raises(WeightsChanged, match="1 of .* first second.weight"):
            weights.restore(base)


def test_checksums_hold_no_module_alive():
    import gc
    import weakref

    with management():
        base, weights = patcher_of(Layers()), BaseWeights()
        weights.note(base)
        module = weakref.ref(base.model)
        del base
        gc.collect()
        assert module() is None


@pytest.mark.parametrize(("vram_bytes", "is_given_up"), [(None, True), (MIB, False)], ids=DEVICES)
def test_memory_pressure_takes_patched_weights_from_host_memory_and_leaves_the_model(vram_bytes, is_given_up):
    short = [lambda: False]

    def system():
        return MemoryView(64 << 30, 9_000 if short[-1]() else 32 << 30)

    def make_cache(owner):
        return RamModelCache(CacheSettings(MIB, headroom_bytes=10_000), owner.hooks(), start_thread=lambda run: None)

    with management(vram_bytes, cache=make_cache, memory=HostMemory(system=system)) as manager:
        cache, pristine = manager.ram_cache, {}

        def load(keys):
            base = patcher_of(Layers())
            pristine.update({name: tensor.clone() for name, tensor in base.model.state_dict().items()})
            return {keys[0]: base}

        model = cache.fetch({"file": 30_000}, load)["file"]
        clone = patched_clone(model)
        manager.load_models_gpu([clone])
        module, placed = model.model, model.model.first.weight
        before_bytes = cache.stats().kept_bytes
        del model, clone
        gc.collect()
        cache.safe_point()
        assert module.first.weight is placed, "the next equal clone finds its weights"
        short.append(lambda: module.first.weight is placed)
        cache._ticked_s = float("-inf")
        cache.safe_point()
        assert (module.first.weight is not placed) == is_given_up
        if is_given_up:
            assert all(torch.equal(tensor, pristine[name]) for name, tensor in module.state_dict().items())
            assert (cache.stats().kept, cache.stats().kept_bytes) == (1, before_bytes - placed.nbytes)
