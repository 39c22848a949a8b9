"""Patched weights in place and out again: exact values, exact objects, any amount of room."""

import pytest
import torch
from residency_models import HOST, Fused, Layers, batch, management, patcher_of

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.patching.layers import layers_of

ROOM = 1 << 20


def change(shape, seed=3, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patched(base, strength=0.5):
    clone = base.clone()
    keys = {"first.weight": (64, 32), "second.bias": (32,), "norm.weight": (32,)}
    taken = clone.add_patches({key: ("diff", (change(shape),)) for key, shape in keys.items()}, strength)
    assert sorted(taken) == sorted(keys)
    return clone


@pytest.mark.parametrize("vram_bytes", [None, ROOM], ids=["cpu", "simulated"])
def test_a_patched_weight_is_a_new_tensor_and_unpatching_returns_the_object(vram_bytes):
    with management(vram_bytes) as manager:
        base = patcher_of(Layers())
        module = base.model
        originals = dict(module.named_parameters())
        copies = {name: parameter.clone() for name, parameter in originals.items()}
        manager.load_models_gpu([patched(base)])
        assert torch.equal(module.first.weight, copies["first.weight"] + 0.5 * change((64, 32)))
        assert torch.equal(module.norm.weight, copies["norm.weight"] + 0.5 * change((32,)))
        assert torch.equal(module.last.weight, copies["last.weight"])
        assert all(torch.equal(originals[name], copy) for name, copy in copies.items()), "a pristine tensor was written"
        manager.load_models_gpu([base])
        assert all(torch.equal(parameter, copies[name]) for name, parameter in module.named_parameters())
        manager.unload_all_models()
        assert all(parameter is originals[name] for name, parameter in module.named_parameters())
        assert all(parameter.data_ptr() == originals[name].data_ptr() for name, parameter in module.named_parameters())
        assert base.backup == {} and base.backup_buffers == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("share", [0.04, 0.45, 0.8])
def test_patches_on_streamed_layers_give_the_same_bits(share, dtype):
    results = []
    vram_bytes = int(share * comfy.model_management.module_size(Layers(dtype=dtype)))
    for room in (None, ROOM, vram_bytes):
        with management(room) as manager:
            clone = patched(patcher_of(Layers(dtype=dtype)))
            clone.add_weight_wrapper("last.weight", lambda weight: weight * 2)
            manager.load_models_gpu([clone])
            results.append(clone.model(batch().to(dtype)))
            assert (room == vram_bytes) == any(layer.is_streamed for layer in layers_of(clone.model))
    assert torch.equal(results[0], results[1]) and torch.equal(results[1], results[2])


def test_only_the_touched_layers_are_redone_when_patches_change():
    with management(ROOM) as manager:
        base = patcher_of(Layers())
        manager.load_models_gpu([base])
        untouched, touched = base.model.last.weight, base.model.first.weight
        manager.load_models_gpu([patched(base)])
        assert base.model.last.weight is untouched, "an untouched layer was copied again"
        assert base.model.first.weight is not touched
        del untouched, touched
        assert base.loaded_size() == base.model_size() == manager.devices.accelerators[0].used_bytes()


def test_equal_patches_are_not_computed_again():
    with management() as manager:
        clone = patched(patcher_of(Layers()))
        manager.load_models_gpu([clone])
        value = clone.model.first.weight
        manager.load_models_gpu([clone])
        manager.load_models_gpu([clone.clone()])
        assert clone.model.first.weight is value


def test_going_back_and_forth_between_patched_and_streamed_stays_exact():
    with management(ROOM) as manager:
        base = patcher_of(Layers())
        clone = patched(base)
        plain = base.model(batch())
        manager.load_models_gpu([clone])
        expected = clone.model(batch())
        for room in (6000, 0, 14000, 1e6, 3000, 1e6):
            clone.partially_load(clone.load_device, room - clone.loaded_size())
            assert torch.equal(clone.model(batch()), expected)
            base.partially_load(base.load_device, 0)
            assert torch.equal(clone.model(batch()), plain)
            clone.partially_load(clone.load_device, 0)
        clone.detach()
        assert torch.equal(clone.model(batch()), plain) and manager.devices.accelerators[0].used_bytes() == 0


def test_a_failed_load_restores_everything(monkeypatch):
    with management(ROOM) as manager:
        clone = patched(patcher_of(Layers()))
        originals = dict(clone.model.named_parameters())
        clone.add_object_patch("shift", torch.zeros(32))
        device = manager.devices.accelerators[0]
        receive, calls = device.receive, []

        def failing(tensor, non_blocking=False):
            calls.append(tensor)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return receive(tensor)

        monkeypatch.setattr(device, "receive", failing)
        with pytest.raises(KeyboardInterrupt):
            manager.load_models_gpu([clone])
        assert all(parameter is originals[name] for name, parameter in clone.model.named_parameters())
        assert float(clone.model.shift[0]) == 0.5 and clone.loaded_size() == 0
        assert not any(layer.is_resident or layer.is_streamed for layer in layers_of(clone.model))


def test_slices_and_views_are_patched_by_their_published_names():
    with management() as manager:
        base = patcher_of(Fused())
        module = base.model
        originals = dict(module.named_parameters())
        q, k, v, out = (originals[f"to_{name}.weight"].clone() for name in ("q", "k", "v", "out"))
        assert base.weights.keys() == ["block.qkv.weight", "block.out.weight"]
        state = base.model_state_dict()
        assert torch.equal(state["block.qkv.weight"], torch.cat([q, k, v])) and state["block.out.weight"].shape == (8, 8, 1, 1)
        clone = base.clone()
        whole, part, kernel = change((24, 8)), change((8, 8), seed=4), change((8, 8, 1, 1), seed=5)
        taken = clone.add_patches(
            {
                "block.qkv.weight": (whole,),
                ("block.qkv.weight", (0, 8, 8)): (part,),
                "block.out.weight": (kernel,),
                "nowhere.weight": (part,),
            }
        )
        assert len(taken) == 3
        manager.load_models_gpu([clone])
        assert torch.equal(module.to_q.weight, q + whole[:8]) and torch.equal(module.to_v.weight, v + whole[16:])
        assert torch.equal(module.to_k.weight, k + whole[8:16] + part)
        assert torch.equal(module.to_out.weight, out + kernel.reshape(8, 8))
        assert torch.equal(clone.get_key_patches()["block.qkv.weight"][0][0], torch.cat([q, k, v]))
        manager.unload_all_models()
        assert all(parameter is originals[name] for name, parameter in module.named_parameters())


@pytest.mark.parametrize("vram_bytes", [100, 256, 500, 700])
def test_fused_weights_stream_exactly(vram_bytes):
    results = []
    for room in (None, vram_bytes):
        with management(room) as manager:
            clone = patcher_of(Fused()).clone()
            clone.add_patches({"block.qkv.weight": (change((24, 8)),), "block.out.weight": (change((8, 8, 1, 1)),)}, 0.3)
            manager.load_models_gpu([clone])
            results.append(clone.model(batch(8)))
            assert room is None or any(layer.is_streamed for layer in layers_of(clone.model))
    assert torch.equal(*results)


def test_tied_weights_are_copied_once():
    class Tied(Layers):
        def __init__(self):
            super().__init__()
            self.tied = torch.nn.Linear(32, 32)
            self.tied.weight = self.last.weight

    with management(ROOM) as manager:
        patcher = patcher_of(Tied().requires_grad_(False))
        manager.load_models_gpu([patcher])
        assert patcher.model.tied.weight is patcher.model.last.weight
        patcher.partially_unload(HOST, 4000)
        manager.load_models_gpu([patcher])
        manager.unload_all_models()
        assert patcher.model.tied.weight is patcher.model.last.weight


def test_object_patches_hold_only_while_loaded_nested_names_included():
    with management() as manager:
        base = patcher_of(torch.nn.Sequential(Layers(), torch.nn.ModuleList([torch.nn.Identity()])))
        clone = base.clone()
        replacement, buffer = torch.nn.Flatten(), torch.ones(32)
        clone.add_object_patch("1.0", replacement)
        clone.add_object_patch("0.shift", buffer)
        assert clone.get_model_object("1.0") is replacement and base.get_model_object("1.0") is not replacement
        manager.load_models_gpu([clone])
        assert clone.model[1][0] is replacement and clone.model[0].shift is buffer
        assert float(base.get_model_object("0.shift")[0]) == 0.5, "seen by the base while the clone is loaded"
        manager.load_models_gpu([base])
        assert isinstance(base.model[1][0], torch.nn.Identity) and float(base.model[0].shift[0]) == 0.5


def test_merging_takes_another_models_patched_weights():
    with management() as manager:
        one, other = patcher_of(Layers()), patched(patcher_of(Layers(seed=1)))
        merged = one.clone()
        merged.add_patches({key: patch for key, patch in other.get_key_patches().items() if key == "first.weight"}, 0.25, 0.75)
        manager.load_models_gpu([merged])
        theirs = Layers(seed=1).first.weight + 0.5 * change((64, 32))
        torch.testing.assert_close(merged.model.first.weight.data, 0.75 * Layers().first.weight + 0.25 * theirs)


def test_saving_gives_patched_weights_whether_loaded_or_not():
    with management(ROOM) as manager:
        clone = patched(patcher_of(Layers()))
        expected = Layers().first.weight + 0.5 * change((64, 32))
        for _ in range(2):
            saved = clone.model_state_dict_for_saving()
            assert torch.equal(saved["first.weight"], expected) and torch.equal(saved["last.weight"], Layers().last.weight)
            manager.load_models_gpu([clone])


def test_compute_dtype_casts_at_each_call():
    with management(ROOM) as manager:
        clone = patcher_of(Layers()).clone()
        clone.model.manual_cast_dtype = None
        clone.set_model_compute_dtype(torch.float64)
        manager.load_models_gpu([clone])
        assert clone.model.first(batch().double()).dtype == torch.float64
        assert clone.get_model_object("manual_cast_dtype") == torch.float64
        manager.unload_all_models()
        assert not clone.model.first.comfy_cast_weights and clone.model.manual_cast_dtype is None


def test_a_module_with_a_device_of_its_own_is_tracked():
    class Computed(Layers):
        @property
        def device(self):
            return self.first.weight.device

    with management(ROOM) as manager:
        patcher = ModelPatcher(Computed(), comfy.model_management.get_torch_device(), HOST)
        manager.load_models_gpu([patcher])
        assert patcher.current_loaded_device() == torch.device("cpu", 0)
        manager.unload_all_models()
        assert patcher.current_loaded_device() == HOST


def test_loading_inside_inference_mode_and_using_outside():
    with management(9000) as manager:
        clone = patched(patcher_of(Layers()))
        with torch.inference_mode():
            manager.load_models_gpu([clone])
            inside = clone.model(batch())
        assert torch.equal(clone.model(batch()), inside)
        manager.unload_all_models()
        manager.load_models_gpu([clone])
        assert torch.equal(clone.model(batch()), inside)


def test_buffers_follow_object_patches_onto_the_device_and_back():
    class Sampling(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.register_buffer("sigmas", torch.full((4,), value))

    with management(ROOM) as manager:
        module = Layers()
        module.model_sampling, other = Sampling(1.0), Sampling(2.0)
        own, theirs = module.model_sampling.sigmas, other.sigmas
        base = patcher_of(module)
        clone = base.clone()
        clone.add_object_patch("model_sampling", other)
        for patcher, value in ((base, 1.0), (clone, 2.0), (base, 1.0), (clone, 2.0)):
            manager.load_models_gpu([patcher])
            current = module.model_sampling.sigmas
            assert float(current[0]) == value and current is not own and current is not theirs, "not on the device"
        manager.unload_all_models()
        assert module.model_sampling.sigmas is own and other.sigmas is theirs
        assert manager.devices.accelerators[0].used_bytes() == current.nbytes, "only what the test itself holds"
