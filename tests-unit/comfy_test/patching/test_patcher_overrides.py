"""Node packs subclass the patcher, replace its methods and assign its attributes: all of that takes effect."""

import collections
import copy
import types

import pytest
import torch
from residency_models import HOST, Fused, Layers, batch, management

import comfy.lora
import comfy.model_management
import comfy.utils
from comfy.hooks import EnumHookMode, HookGroup
from comfy.model_patcher import ModelPatcher
from comfy.patching.layers import layers_of

ROOM = 1 << 20
ROOMS = pytest.mark.parametrize("vram_bytes", [None, ROOM, 9000], ids=["cpu", "simulated", "partial"])
Original = collections.namedtuple("Original", ["weight", "inplace_update"])


def patcher_of(kind, module=None):
    module = Layers() if module is None else module
    return kind(module, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device())


def add_ones(patcher, keys=("first.weight", "second.bias", "norm.weight")):
    module = patcher.model
    patcher.add_patches({key: (torch.ones_like(comfy.utils.get_attr(module, key)),) for key in keys})
    return patcher


class Doubling(ModelPatcher):
    """Doubles patched weights, in the way that packs for other formats of weights do it."""

    in_place = False

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False):
        if key not in self.patches:
            return
        weight = comfy.utils.get_attr(self.model, key)
        if key not in self.backup:
            self.backup[key] = Original(weight.to(self.offload_device, copy=self.in_place), self.in_place)
        value = weight.to(torch.device("cpu") if device_to is None else device_to, copy=True) * 2
        if self.in_place:
            comfy.utils.copy_to_param(self.model, key, value)
        else:
            comfy.utils.set_attr_param(self.model, key, value)

    def load(self, *args, force_patch_weights=False, **kwargs):
        super().load(*args, force_patch_weights=True, **kwargs)


@ROOMS
@pytest.mark.parametrize("in_place", [False, True], ids=["new tensors", "in place"])
def test_weights_patched_by_a_subclass_are_used_wherever_they_are_and_restored(vram_bytes, in_place):
    with management(vram_bytes) as manager:
        patcher = add_ones(patcher_of(type("Doubling", (Doubling,), {"in_place": in_place})))
        originals = dict(patcher.model.named_parameters())
        copies = {name: parameter.clone() for name, parameter in originals.items()}
        expected = Layers()
        for parameter in (expected.first.weight, expected.second.bias, expected.norm.weight):
            parameter.mul_(2)
        for _ in range(2):
            manager.load_models_gpu([patcher])
            assert any(layer.is_streamed for layer in layers_of(patcher.model)) == (vram_bytes == 9000)
            assert torch.equal(patcher.model(batch()), expected(batch()))
            manager.unload_all_models()
            assert all(torch.equal(parameter, copies[name]) for name, parameter in patcher.model.named_parameters())
            assert patcher.backup == {}
        if not in_place:
            assert all(parameter is originals[name] for name, parameter in patcher.model.named_parameters())


def test_an_override_that_adds_to_the_original_keeps_its_values_for_weights_of_several_parts():
    seen = []

    class Counting(ModelPatcher):
        def patch_weight_to_device(self, key, *arguments, **named):
            seen.append(key)
            return super().patch_weight_to_device(key, *arguments, **named)

    results = []
    for vram_bytes in (None, 100, 256, 500, 700):
        with management(vram_bytes) as manager:
            for kind in (ModelPatcher, Counting):
                patcher = patcher_of(kind, Fused())
                patcher.add_patches({"block.qkv.weight": (torch.ones(24, 8),), "block.out.weight": (torch.ones(8, 8, 1, 1),)})
                manager.load_models_gpu([patcher])
                results.append(patcher.model(batch(8)))
    assert all(torch.equal(results[0], result) for result in results[1:])
    assert {"block.qkv.weight", "block.out.weight"} <= set(seen)


@pytest.mark.parametrize("where", ["object", "class"])
def test_a_replaced_method_takes_effect(where, monkeypatch):
    def replacement(self, key, device_to=None, **_):
        if key in self.patches:
            comfy.utils.set_attr_param(self.model, key, torch.full_like(comfy.utils.get_attr(self.model, key), 3.0))

    with management() as manager:
        patcher = add_ones(patcher_of(ModelPatcher), ["last.bias"])
        original = patcher.model.last.bias
        if where == "object":
            patcher.patch_weight_to_device = types.MethodType(replacement, patcher)
        else:
            monkeypatch.setattr(ModelPatcher, "patch_weight_to_device", replacement)
        manager.load_models_gpu([patcher])
        assert bool((patcher.model.last.bias == 3).all())
        manager.unload_all_models()
        assert patcher.model.last.bias is original


@ROOMS
def test_weights_calculated_by_a_subclass_are_the_same_with_little_room(vram_bytes):
    class Subtracting(ModelPatcher):
        def calculate_weight(self, patches, weight, key, intermediate_dtype=torch.float32):
            return weight - (comfy.lora.calculate_weight(patches, weight.clone(), key) - weight)

    with management(vram_bytes) as manager:
        patcher = add_ones(patcher_of(Subtracting))
        manager.load_models_gpu([patcher])
        expected = Layers()
        for parameter in (expected.first.weight, expected.second.bias, expected.norm.weight):
            parameter.copy_(parameter - ((parameter + 1) - parameter))
        assert torch.equal(patcher.model(batch()), expected(batch()))


def recording(names):
    """A subclass that notes each call of the methods *names*, and the list of notes."""
    calls = []

    def override(name):
        def method(self, *arguments, **named):
            calls.append((name, named))
            return getattr(ModelPatcher, name)(self, *arguments, **named)

        return method

    return type("Recording", (ModelPatcher,), {name: override(name) for name in names}), calls


def test_the_patchers_own_steps_reach_overrides():
    steps = {
        "partially_load": {"unpatch_model", "patch_model", "load", "use_ejected", "eject_model", "inject_model", "get_all_callbacks"},
        "load": {"unpatch_hooks", "apply_hooks", "model_size", "use_ejected"},
        "partially_unload": {"unpatch_hooks", "use_ejected"},
        "detach": {"eject_model", "model_patches_to", "unpatch_model", "unpin_all_weights"},
        "cleanup": {"clean_hooks", "clear_cached_hook_weights", "patch_hooks", "unpatch_hooks", "model_patches_call_function"},
        "clone": {"get_clone_model_override", "model_size", "get_all_callbacks"},
        "set_model_attn1_patch": {"set_model_patch"},
        "set_model_attn2_replace": {"set_model_patch_replace"},
        "set_model_compute_dtype": {"add_object_patch"},
        "add_callback": {"add_callback_with_key"},
        "add_wrapper": {"add_wrapper_with_key"},
        "get_nested_additional_models": {"get_additional_models"},
        "state_dict_for_saving": {"model_state_dict_for_saving"},
        "register_all_hook_patches": {"restore_hook_patches", "get_all_callbacks"},
    }
    arguments = {
        "partially_load": lambda patcher: (patcher.load_device, ROOM),
        "load": lambda patcher: (patcher.load_device, ROOM),
        "partially_unload": lambda patcher: (HOST, 1),
        "set_model_attn1_patch": lambda patcher: (object(),),
        "set_model_attn2_replace": lambda patcher: (object(), "middle", 0),
        "set_model_compute_dtype": lambda patcher: (None,),
        "add_callback": lambda patcher: ("moment", print),
        "add_wrapper": lambda patcher: ("kind", print),
        "register_all_hook_patches": lambda patcher: (HookGroup(), {}),
    }
    kind, calls = recording(set().union(*steps.values()))
    with management(ROOM):
        patcher = add_ones(patcher_of(kind))
        patcher.model.state_dict_for_saving = lambda own, **others: own
        for name, expected in steps.items():
            calls.clear()
            getattr(patcher, name)(*arguments.get(name, lambda patcher: ())(patcher))
            assert expected <= {called for called, _ in calls}, name


def test_load_gets_its_settings_by_name():
    kind, calls = recording({"load", "partially_unload"})
    with management(ROOM):
        patcher = patcher_of(kind)
        patcher.patch_model(patcher.load_device, 8000, force_patch_weights=True)
        patcher.partially_load(patcher.load_device, ROOM, force_patch_weights=True)
        patcher.partially_load(patcher.load_device, -4000, force_patch_weights=True)
    settings = {"lowvram_model_memory", "force_patch_weights", "full_load"}
    assert [set(named) for name, named in calls if name == "load"][:2] == [settings, settings]
    assert all(named["force_patch_weights"] for _, named in calls)


def test_a_patcher_can_change_its_class_as_packs_do_when_they_clone():
    with management() as manager:
        base = add_ones(patcher_of(ModelPatcher))
        clone = Doubling.clone(base)
        clone.__class__ = Doubling
        manager.load_models_gpu([clone])
        assert torch.equal(clone.model.first.weight, Layers().first.weight * 2)
        assert type(clone.clone()) is Doubling and type(base) is ModelPatcher


ASSIGNABLE = {
    **dict.fromkeys(("patches", "object_patches", "backup", "backup_buffers", "object_patches_backup", "hook_patches"), dict),
    **dict.fromkeys(("callbacks", "wrappers", "injections", "attachments", "additional_models", "weight_wrapper_patches"), dict),
    **dict.fromkeys(("model_options", "hook_patches_backup", "hook_backup", "cached_hook_patches"), dict),
    **dict.fromkeys(("is_injected", "skip_injection", "force_cast_weights", "is_clip"), bool),
    "pinned": set,
    "current_hooks": HookGroup,
    "forced_hooks": HookGroup,
    "patches_uuid": object,
    "hook_mode": lambda: EnumHookMode.MinVram,
}


@pytest.mark.parametrize("relative", [ModelPatcher.clone, copy.copy], ids=["clone", "copy"])
def test_every_attribute_can_be_assigned_without_changing_relatives(relative):
    with management():
        patcher = patcher_of(ModelPatcher)
        twin = relative(patcher)
        before = {name: getattr(patcher, name) for name in ASSIGNABLE}
        for name, make in ASSIGNABLE.items():
            value = make()
            setattr(twin, name, value)
            assert getattr(twin, name) is value, name
        assert all(getattr(patcher, name) is value for name, value in before.items())


def test_clones_share_what_is_loaded_and_nothing_else():
    shared = {"backup", "backup_buffers", "object_patches_backup", "pinned", "hook_backup"}
    with management():
        patcher = patcher_of(ModelPatcher)
        clone = patcher.clone().clone(model_override=patcher.get_clone_model_override())
        containers = {name for name in ASSIGNABLE if isinstance(getattr(patcher, name), dict | set)}
        assert {name for name in containers if getattr(patcher, name) is getattr(clone, name)} == shared


def test_patches_in_a_plain_dict_work_and_stay_with_their_clone():
    with management() as manager:
        patcher = patcher_of(ModelPatcher)
        patcher.patches = {}
        add_ones(patcher, ["first.weight"])
        patcher.patches["last.bias"] = [(1.0, (torch.ones(32),), 1.0, None, None)]
        clone = patcher.clone()
        clone.patches["last.bias"].append((1.0, (torch.ones(32),), 1.0, None, None))
        assert len(patcher.patches["last.bias"]) == 1
        manager.load_models_gpu([clone])
        assert torch.equal(clone.model.last.bias, Layers().last.bias + 1 + 1)
        assert torch.equal(clone.model.first.weight, Layers().first.weight + 1)
